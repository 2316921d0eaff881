// One network in OpenVINO, on the CPU, as it was measured: one sample, one thread.
#pragma once
#include <cstring>
#include <string>
#include <vector>

#include <openvino/openvino.hpp>

#include "contract.h"
#include "files.h"

class Network {
 public:
  explicit Network(std::string const& path) {
    read(path);  // a missing file is named as such
    ov::Core core;
    auto model = core.read_model(path);
    if (model->inputs().size() != 1 || model->outputs().size() != 1)
      fail("the network has other inputs or outputs than the contract");
    model->reshape(ov::PartialShape(ov::Shape(kInputShape, kInputShape + kInputRank)));
    // Left alone, OpenVINO picks bfloat16 in silence where the processor has it.
    ov::AnyMap settings{{"INFERENCE_PRECISION_HINT", std::string(kPrecision)},
                        {"INFERENCE_NUM_THREADS", 1},
                        {"PERFORMANCE_HINT", std::string("LATENCY")}};
    if (!kSnippets) settings["SNIPPETS_MODE"] = std::string("DISABLE");
    request_ = core.compile_model(model, "CPU", settings).create_infer_request();
    in_ = request_.get_input_tensor();
    out_ = request_.get_output_tensor();
    if (in_.get_byte_size() != kInputBytes || out_.get_byte_size() != kOutputCount * sizeof(float))
      fail("the network has other tensors than the contract");
  }

  void put(char const* sample) { std::memcpy(in_.data(), sample, kInputBytes); }
  void run() { request_.infer(); }
  std::vector<float> operator()(char const* sample) {
    put(sample);
    run();
    float const* values = out_.data<float>();
    return std::vector<float>(values, values + kOutputCount);
  }

 private:
  ov::InferRequest request_;
  ov::Tensor in_, out_;
};
