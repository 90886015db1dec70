// Maps [B, H, W, C], and which of a convolution's positions meet which.
#ifndef UNIFACE_MAPS_H_
#define UNIFACE_MAPS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "outer_products.h"
#include "tasks.h"
#include "xla/ffi/api/ffi.h"

namespace uniface {

using Floats = xla::ffi::Buffer<xla::ffi::F32>;
using Result = xla::ffi::ResultBuffer<xla::ffi::F32>;

constexpr ptrdiff_t kRowsInWork = 4;  // of maps, so that they stay in a core's second-level cache

struct Map {
  ptrdiff_t batch, height, width, channels;
};
inline Map MapOf(xla::ffi::Span<const int64_t> d) { return {d[0], d[1], d[2], d[3]}; }

struct Problem {
  Map in, out;  // of the convolution, whichever of its gradients is wanted
  ptrdiff_t taps, stride, padding;  // taps: of a square kernel's side
};

// Those of the `wanted` outputs that a tap reaches from within an input of `input`.
inline Range Reached(const Problem& p, ptrdiff_t tap, ptrdiff_t input, Range wanted) {
  const ptrdiff_t least = p.padding - tap, most = input - 1 + p.padding - tap;
  const ptrdiff_t begin = least <= 0 ? 0 : (least + p.stride - 1) / p.stride;
  const ptrdiff_t end = most < 0 ? 0 : most / p.stride + 1;
  return {std::max(begin, wanted.begin), std::min(end, wanted.end)};
}

// The sum of `parts` arrays of `size` floats, whole vectors, that lie behind each other.
inline void SumParts(const xla::ffi::ThreadPool& pool, ptrdiff_t parts, const float* sums,
                     ptrdiff_t size, float* result) {
  RunTasks(pool, static_cast<int>(parts), [&](int task) {
    const Range range = Part(task, parts, size, kWidth);
    for (ptrdiff_t i = range.begin; i < range.end; i += kWidth) {
      Vec sum = Load(sums + i);
      for (ptrdiff_t other = 1; other < parts; ++other) sum += Load(sums + other * size + i);
      Store(result + i, sum);
    }
  });
}

// What kernels of convolutions and their gradients take: two arrays, stride and padding.
inline auto ConvolutionBinding() {
  return xla::ffi::Ffi::Bind()
      .Ctx<xla::ffi::ThreadPool>()
      .Arg<Floats>()
      .Arg<Floats>()
      .Attr<int32_t>("stride")
      .Attr<int32_t>("padding");
}

}  // namespace uniface

#endif  // UNIFACE_MAPS_H_
