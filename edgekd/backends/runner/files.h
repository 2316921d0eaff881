// What runner and network share.
#pragma once
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

using Bytes = std::vector<char>;

[[noreturn]] inline void fail(std::string const& what) { throw std::runtime_error(what); }

inline Bytes read(std::string const& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail("cannot read " + path);
  return Bytes(std::istreambuf_iterator<char>(file), {});
}
