// Runs the network of this bundle: the golden self-test, a latency check, or one raw input.
//
//   runner MODEL golden              give the golden inputs, compare; exit 0 when they agree
//   runner MODEL time [RUNS]         median and 99th percentile of one inference
//   runner MODEL raw IN.bin OUT.bin  camera bytes (uint8, height x width x channel) or, with
//                                    --prepared, the tensor as the network takes it
//
// Exit codes: 0 agrees, 1 failure of the runtime, 2 usage, 5 the golden outputs differ.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "contract.h"
#include "network.h"

namespace {

using Clock = std::chrono::steady_clock;

std::vector<float> floats(Bytes const& raw) {
  std::vector<float> values(raw.size() / sizeof(float));
  std::memcpy(values.data(), raw.data(), values.size() * sizeof(float));
  return values;
}

// Camera bytes (height, width, channel) to what the network takes (channel, height, width), unless
// it takes the bytes themselves.
Bytes prepare(Bytes const& raw) {
  if (kTakesBytes) return raw;
  if (kChannels == 0) fail("this network takes no images; give its tensor with --prepared");
  if (raw.size() != kInputCount) fail("the image has another size than the network takes");
  std::vector<float> values(kInputCount);
  size_t const pixels = kInputCount / static_cast<size_t>(kChannels);
  for (size_t pixel = 0; pixel < pixels; ++pixel)
    for (size_t c = 0; c < static_cast<size_t>(kChannels); ++c) {
      float const value = static_cast<uint8_t>(raw[pixel * static_cast<size_t>(kChannels) + c]);
      values[c * pixels + pixel] = (value / 255.0f - kMean[c]) / kStd[c];
    }
  auto const* bytes = reinterpret_cast<char const*>(values.data());
  return Bytes(bytes, bytes + kInputBytes);
}

int golden(Network& network, std::string const& folder) {
  auto const inputs = read(folder + "/input.bin");
  auto const wanted = floats(read(folder + "/output.bin"));
  double worst_cosine = 1, worst_error = 0, largest = 0;
  for (float value : wanted) largest = std::max(largest, std::fabs(static_cast<double>(value)));
  for (int sample = 0; sample < kGoldenSamples; ++sample) {
    auto const found = network(inputs.data() + static_cast<size_t>(sample) * kInputBytes);
    float const* truth = wanted.data() + static_cast<size_t>(sample) * kOutputCount;
    double dot = 0, a = 0, b = 0;
    for (size_t i = 0; i < kOutputCount; ++i) {
      double const x = found[i], y = truth[i];
      if (!std::isfinite(x)) fail("the network gives NaN or infinite values");
      dot += x * y, a += x * x, b += y * y;
      worst_error = std::max(worst_error, std::fabs(x - y));
    }
    double const cosine = a == 0 && b == 0 ? 1 : dot / std::max(std::sqrt(a * b), 1e-30);
    worst_cosine = std::min(worst_cosine, cosine);
  }
  double const relative = worst_error / std::max(largest, 1e-30);
  bool const good = worst_cosine >= kMinCosine && relative <= kMaxRelative;
  std::printf("{\"golden\": \"%s\", \"samples\": %d, \"min_cosine\": %.6f, \"max_rel\": %.6f}\n",
              good ? "passed" : "failed", kGoldenSamples, worst_cosine, relative);
  return good ? 0 : 5;
}

int timed(Network& network, std::string const& folder, int runs) {
  auto const inputs = read(folder + "/input.bin");
  network.put(inputs.data());
  for (int i = 0; i < 50; ++i) network.run();
  std::vector<double> ms;
  for (int i = 0; i < runs; ++i) {
    auto const begin = Clock::now();
    network.run();
    ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
  }
  std::sort(ms.begin(), ms.end());
  std::printf("{\"runs\": %d, \"p50_ms\": %.4f, \"p99_ms\": %.4f}\n", runs, ms[ms.size() / 2],
              ms[std::min(ms.size() - 1, ms.size() * 99 / 100)]);
  return 0;
}

int raw(Network& network, std::string const& in, std::string const& out, bool prepared) {
  auto const sample = prepared ? read(in) : prepare(read(in));
  if (sample.size() != kInputBytes) fail("the input has another size than the network takes");
  auto const result = network(sample.data());
  std::ofstream file(out, std::ios::binary);
  file.write(reinterpret_cast<char const*>(result.data()),
             static_cast<std::streamsize>(result.size() * sizeof(float)));
  if (!file) fail("cannot write " + out);
  return 0;
}

int usage() {
  std::fputs("runner MODEL golden|time [RUNS]|raw IN OUT [--prepared]\n", stderr);
  return 2;
}

}  // namespace

int main(int count, char** words) try {
  std::vector<std::string> const args(words + 1, words + count);
  if (args.size() < 2) return usage();
  char const* set = std::getenv("EDGEKD_GOLDEN");
  std::string const folder = set ? set : EDGEKD_GOLDEN_FOLDER;
  if (args[1] == "golden") {
    Network network(args[0]);
    return golden(network, folder);
  }
  if (args[1] == "time") {
    int const runs = args.size() > 2 ? std::atoi(args[2].c_str()) : 200;
    if (runs < 1) return usage();
    Network network(args[0]);
    return timed(network, folder, runs);
  }
  if (args[1] == "raw" && args.size() >= 4) {
    Network network(args[0]);
    return raw(network, args[2], args[3], args.size() > 4 && args[4] == "--prepared");
  }
  return usage();
} catch (std::exception const& error) {
  std::fprintf(stderr, "runner: %s\n", error.what());
  return 1;
}
