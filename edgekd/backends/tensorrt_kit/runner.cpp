// Runs the engine of this bundle: the golden self-test, a latency check, or one raw input.
//
//   runner model.plan golden              give the golden inputs, compare; exit 0 when they agree
//   runner model.plan time [RUNS]         median and 99th percentile of one inference, CUDA graph off
//   runner model.plan raw IN.bin OUT.bin  camera bytes (uint8, height x width x channel) or, with
//                                         --prepared, the tensor as the network takes it
//
// Exit codes: 0 agrees, 1 failure of CUDA or TensorRT, 2 usage, 5 the golden outputs differ.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include "contract.h"

namespace {

using Bytes = std::vector<char>;
using Clock = std::chrono::steady_clock;

[[noreturn]] void fail(std::string const& what) { throw std::runtime_error(what); }

void check(cudaError_t code, char const* doing) {
  if (code != cudaSuccess) fail(std::string(doing) + ": " + cudaGetErrorString(code));
}

Bytes read(std::string const& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail("cannot read " + path);
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

class Log : public nvinfer1::ILogger {
  void log(Severity severity, char const* text) noexcept override {
    if (severity <= Severity::kWARNING) std::fprintf(stderr, "[TRT] %s\n", text);
  }
};

// Device memory that frees itself.
struct Buffer {
  explicit Buffer(size_t bytes) : size(bytes) { check(cudaMalloc(&data, bytes), "cudaMalloc"); }
  ~Buffer() { cudaFree(data); }
  Buffer(Buffer const&) = delete;
  Buffer& operator=(Buffer const&) = delete;
  void* data = nullptr;
  size_t size;
};

// One engine, one input, one output, one sample at a time.
class Network {
 public:
  explicit Network(Bytes const& plan)
      : runtime_(nvinfer1::createInferRuntime(log_)), in_(kInputBytes),
        out_(kOutputCount * sizeof(float)) {
    if (!runtime_) fail("TensorRT gives no runtime: is the driver there?");
    engine_.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
    if (!engine_) fail("the engine was built by another TensorRT or for another GPU; run build.sh");
    context_.reset(engine_->createExecutionContext());
    if (!context_) fail("no execution context: the device's memory is short");
    check(cudaStreamCreate(&stream_), "cudaStreamCreate");
    nvinfer1::Dims dims{};
    dims.nbDims = kInputRank;
    for (int i = 0; i < kInputRank; ++i) dims.d[i] = kInputShape[i];
    bool ok = context_->setInputShape(kInputName, dims) &&
              context_->setTensorAddress(kInputName, in_.data) &&
              context_->setTensorAddress(kOutputName, out_.data);
    if (!ok) fail("the engine has other inputs or outputs than the contract");
  }
  ~Network() { cudaStreamDestroy(stream_); }

  void enqueue() {
    if (!context_->enqueueV3(stream_)) fail("enqueueV3 failed");
  }
  void wait() { check(cudaStreamSynchronize(stream_), "inference"); }
  void put(char const* sample) {
    check(cudaMemcpyAsync(in_.data, sample, in_.size, cudaMemcpyHostToDevice, stream_), "copy in");
  }
  std::vector<float> operator()(char const* sample) {
    std::vector<float> result(kOutputCount);
    put(sample);
    enqueue();
    check(cudaMemcpyAsync(result.data(), out_.data, out_.size, cudaMemcpyDeviceToHost, stream_),
          "copy out");
    wait();
    return result;
  }

 private:
  Log log_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  cudaStream_t stream_ = nullptr;
  Buffer in_, out_;
};

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
      if (!std::isfinite(x)) fail("the engine gives NaN or infinite values");
      dot += x * y, a += x * x, b += y * y;
      worst_error = std::max(worst_error, std::fabs(x - y));
    }
    worst_cosine = std::min(worst_cosine, dot / std::max(std::sqrt(a * b), 1e-30));
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
  for (int i = 0; i < 50; ++i) network.enqueue();
  network.wait();
  std::vector<double> ms;
  for (int i = 0; i < runs; ++i) {
    auto const begin = Clock::now();
    network.enqueue();
    network.wait();
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
  std::fputs("runner PLAN golden|time [RUNS]|raw IN OUT [--prepared]\n", stderr);
  return 2;
}

}  // namespace

int main(int count, char** words) try {
  std::vector<std::string> const args(words + 1, words + count);
  if (args.size() < 2) return usage();
  char const* set = std::getenv("EDGEKD_GOLDEN");
  std::string const folder = set ? set : EDGEKD_GOLDEN_FOLDER;
  if (args[1] == "golden") {
    Network network(read(args[0]));
    return golden(network, folder);
  }
  if (args[1] == "time") {
    int const runs = args.size() > 2 ? std::atoi(args[2].c_str()) : 200;
    if (runs < 1) return usage();
    Network network(read(args[0]));
    return timed(network, folder, runs);
  }
  if (args[1] == "raw" && args.size() >= 4) {
    Network network(read(args[0]));
    return raw(network, args[2], args[3], args.size() > 4 && args[4] == "--prepared");
  }
  return usage();
} catch (std::exception const& error) {
  std::fprintf(stderr, "runner: %s\n", error.what());
  return 1;
}
