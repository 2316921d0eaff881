// One TensorRT engine, built on this board.
#pragma once
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include "contract.h"
#include "files.h"

inline void check(cudaError_t code, char const* doing) {
  if (code != cudaSuccess) fail(std::string(doing) + ": " + cudaGetErrorString(code));
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
  explicit Network(std::string const& path)
      : runtime_(nvinfer1::createInferRuntime(log_)), in_(kInputBytes),
        out_(kOutputCount * sizeof(float)) {
    if (!runtime_) fail("TensorRT gives no runtime: is the driver there?");
    Bytes const plan = read(path);
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

  // One inference, from device memory to device memory.
  void run() {
    enqueue();
    wait();
  }
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
  void enqueue() {
    if (!context_->enqueueV3(stream_)) fail("enqueueV3 failed");
  }
  void wait() { check(cudaStreamSynchronize(stream_), "inference"); }

  Log log_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  cudaStream_t stream_ = nullptr;
  Buffer in_, out_;
};
