// Stands in for TensorRT where there is none: the calls that the runner makes, on a network that
// adds 1 to its input's first values. It proves the runner's own logic, nothing of TensorRT.
#pragma once
#include <cstdint>
#include <cstring>

#include "cuda_runtime_api.h"

namespace nvinfer1 {
struct Dims {
  int32_t nbDims;
  int64_t d[8];
};
class ILogger {
 public:
  enum class Severity : int32_t { kINTERNAL_ERROR, kERROR, kWARNING, kINFO, kVERBOSE };
  virtual ~ILogger() = default;
  virtual void log(Severity severity, char const* text) noexcept = 0;
};
class IExecutionContext {
 public:
  bool setInputShape(char const* name, Dims const& dims) {
    return std::strcmp(name, "input") == 0 && dims.nbDims > 0;
  }
  bool setTensorAddress(char const* name, void* place) {
    bool const in = std::strcmp(name, "input") == 0;
    (in ? in_ : out_) = static_cast<float*>(place);
    return in || std::strcmp(name, "features") == 0;
  }
  bool enqueueV3(cudaStream_t) {
    for (int i = 0; i < 5; ++i) out_[i] = in_[i] + 1;
    return true;
  }

 private:
  float *in_ = nullptr, *out_ = nullptr;
};
class ICudaEngine {
 public:
  IExecutionContext* createExecutionContext() { return new IExecutionContext; }
};
class IRuntime {
 public:
  ICudaEngine* deserializeCudaEngine(void const* plan, size_t size) {
    return size >= 4 && std::memcmp(plan, "plan", 4) == 0 ? new ICudaEngine : nullptr;
  }
};
inline IRuntime* createInferRuntime(ILogger&) { return new IRuntime; }
}  // namespace nvinfer1
