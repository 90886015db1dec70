// 3x3 convolutions of stride 1 by Winograd's F(N x N, 3x3) (Lavin and Gray, CVPR 2016), and their
// kernel gradient by its transpose, with N of 2 or 4: 2.25 or 4 times fewer products than
// convolution.cc's, for sums and differences of neighbors before and after them (winograd.h), which
// are taken while a few tiles are in a core's cache.

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "maps.h"
#include "outer_products.h"
#include "tasks.h"
#include "winograd.h"
#include "xla/ffi/api/ffi.h"

namespace uniface {
namespace {

namespace ffi = xla::ffi;

constexpr ptrdiff_t kMapFloats = 1 << 19;  // of transformed tiles, backward in work at once

// What Winograd<N> makes of a map: tiles of N x N outputs from kSide x kSide inputs.
template <int N>
struct Tiles {
  static constexpr int kSide = N + 2, kAll = kSide * kSide;
  ptrdiff_t batch, height, width, channels;  // of a map
  ptrdiff_t down, across;                    // tiles of an image
  ptrdiff_t count() const { return batch * down * across; }
  // The image of a tile, and its first row and column.
  std::array<ptrdiff_t, 3> At(ptrdiff_t tile) const {
    const ptrdiff_t of_image = tile % (down * across);
    return {tile / (down * across), of_image / across * N, of_image % across * N};
  }
};

template <int N>
Tiles<N> TilesOf(ffi::Span<const int64_t> d, ptrdiff_t height, ptrdiff_t width) {
  return {d[0], d[1], d[2], d[3], (height + N - 1) / N, (width + N - 1) / N};
}

// Tiles forward in work at once: whole rows of tiles of sums, within a core's second-level cache.
template <int N>
ptrdiff_t TilesForward(ptrdiff_t channels) {
  const ptrdiff_t fitting = (N == 2 ? 1 << 18 : 1 << 17) / (Tiles<N>::kAll * channels);
  return N == 2 ? 48 : std::max<ptrdiff_t>(2, std::min<ptrdiff_t>(8, fitting / 6)) * 6;
}

// A tile's kSide x kSide positions of a map, transformed: to[e * step + channel]. Its first position
// is (h, w), of which any may be beyond the borders.
template <int N>
void TransformInput(const Tiles<N>& map, const float* x, const float* zeros, ptrdiff_t image,
                    ptrdiff_t h, ptrdiff_t w, float* to, ptrdiff_t step) {
  constexpr int kSide = Tiles<N>::kSide;
  const float* at[kSide][kSide];
  for (int i = 0; i < kSide; ++i)
    for (int j = 0; j < kSide; ++j) {
      const bool inside = h + i >= 0 && h + i < map.height && w + j >= 0 && w + j < map.width;
      at[i][j] = inside ? x + ((image * map.height + h + i) * map.width + w + j) * map.channels
                        : zeros;
    }
  for (ptrdiff_t c = 0; c < map.channels; c += kWidth)
    AlongBothAxes<Winograd<N>::OfInput, kSide, kSide>(
        [&](int i, int j) { return Load(at[i][j] + c); },
        [&](int i, int j, Vec all) { Store(to + (i * kSide + j) * step + c, all); });
}

// kernel [3, 3, C, O], the panel of outputs from `start`, to [kAll][step], of each C rows of a panel.
template <int N>
void TransformKernel(const float* kernel, ptrdiff_t channels, ptrdiff_t outputs, ptrdiff_t start,
                     float* to) {
  constexpr int kSide = Tiles<N>::kSide;
  const ptrdiff_t width = VectorsFrom(start, outputs) * kWidth, tap = channels * outputs;
  const ptrdiff_t step = PanelStep(channels, width);
  for (ptrdiff_t c = 0; c < channels; ++c)
    for (ptrdiff_t o = 0; o < width; o += kWidth) {
      const float* g = kernel + c * outputs + start + o;
      AlongBothAxes<Winograd<N>::OfKernel, 3, kSide>(
          [&](int i, int j) { return Load(g + (3 * i + j) * tap); },
          [&](int i, int j, Vec all) { Store(to + (i * kSide + j) * step + c * width + o, all); });
    }
}

// sums [kAll][step], `width` channels, to the tile's N x N outputs from (h, w) of y on.
template <int N>
void TransformOutput(const Tiles<N>& out, const float* sums, ptrdiff_t step, ptrdiff_t width,
                     ptrdiff_t image, ptrdiff_t h, ptrdiff_t w, float* y) {
  constexpr int kSide = Tiles<N>::kSide;
  float* to = y + ((image * out.height + h) * out.width + w) * out.channels;
  const int rows_there = static_cast<int>(std::min<ptrdiff_t>(N, out.height - h));
  const int columns_there = static_cast<int>(std::min<ptrdiff_t>(N, out.width - w));
  for (ptrdiff_t c = 0; c < width; c += kWidth) {
    Vec rows[N][kSide];
#pragma GCC unroll 6
    for (int j = 0; j < kSide; ++j) {
      Vec column[kSide], all[N];
#pragma GCC unroll 6
      for (int i = 0; i < kSide; ++i) column[i] = Load(sums + (i * kSide + j) * step + c);
      Winograd<N>::ToOutput(column, all);
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) rows[i][j] = all[i];
    }
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      if (i >= rows_there) break;
      Vec all[N];
      Winograd<N>::ToOutput(rows[i], all);
#pragma GCC unroll 4
      for (int j = 0; j < N; ++j)
        if (j < columns_there) Store(to + (i * out.width + j) * out.channels + c, all[j]);
    }
  }
}

// The N x N gradients of a tile, `width` channels of each from `y_bar` on: to[e * step + channel].
template <int N>
void TransformOutputGradient(const Tiles<N>& out, const float* y_bar, const float* zeros,
                             ptrdiff_t image, ptrdiff_t h, ptrdiff_t w, float* to,
                             ptrdiff_t step) {
  constexpr int kSide = Tiles<N>::kSide;
  const float* at[N][N];
  for (int i = 0; i < N; ++i)
    for (int j = 0; j < N; ++j)
      at[i][j] = h + i < out.height && w + j < out.width
                     ? y_bar + ((image * out.height + h + i) * out.width + w + j) * out.channels
                     : zeros;
  for (ptrdiff_t c = 0; c < out.channels; c += kWidth)
    AlongBothAxes<Winograd<N>::OfOutputGradient, N, kSide>(
        [&](int i, int j) { return Load(at[i][j] + c); },
        [&](int i, int j, Vec all) { Store(to + (i * kSide + j) * step + c, all); });
}

ffi::Error Refused() {
  return ffi::Error::InvalidArgument("the convolution's shapes or scratch are not as agreed");
}

template <int N>
ptrdiff_t ForwardScratch(ptrdiff_t channels, ptrdiff_t outputs) {
  const ptrdiff_t panels = (outputs + kPanel - 1) / kPanel;
  return Tiles<N>::kAll * (channels * outputs + panels * kWidth) + channels;
}

template <int N>
ffi::Error ForwardBy(const ffi::ThreadPool& pool, const Floats& x, const Floats& kernel,
                     int32_t padding, Result& y, Result& scratch) {
  constexpr int kAll = Tiles<N>::kAll;
  const auto d = y->dimensions();
  const auto in = TilesOf<N>(x.dimensions(), d[1], d[2]), out = TilesOf<N>(d, d[1], d[2]);
  const ptrdiff_t channels = in.channels, outputs = out.channels;
  if (channels % kWidth || outputs % kWidth || kernel.dimensions()[0] != 3 ||
      static_cast<ptrdiff_t>(scratch->element_count()) < ForwardScratch<N>(channels, outputs))
    return Refused();
  // A panel's begin where they would if all were whole.
  const ptrdiff_t panel_size = kAll * PanelStep(channels, kPanel);
  float* transformed = scratch->typed_data();  // [panel][kAll][C, kPanel]
  float* zeros = transformed + ForwardScratch<N>(channels, outputs) - channels;
  std::fill(zeros, zeros + channels, 0.0f);
  const int panels = static_cast<int>((outputs + kPanel - 1) / kPanel);
  RunTasks(pool, panels, [&](int task) {
    const ptrdiff_t start = task * kPanel;
    TransformKernel<N>(kernel.typed_data(), channels, outputs, start,
                       transformed + task * panel_size);
  });
  const ptrdiff_t most = TilesForward<N>(channels);
  const int tasks = static_cast<int>((in.count() + most - 1) / most);
  RunTasks(pool, tasks, [&](int task) {
    static thread_local std::vector<float> memory;  // a thread's, from call to call
    // The odd vector keeps those of a tile from falling on one set of the cache.
    const ptrdiff_t step = most * channels + kWidth, sum_step = most * kPanel + kWidth;
    memory.resize(std::max<size_t>(memory.size(), kAll * (step + sum_step)));
    float *tiles = memory.data(), *sums = tiles + kAll * step;
    const Range range = Part(task, tasks, in.count());
    const ptrdiff_t count = range.end - range.begin;
    for (ptrdiff_t t = 0; t < count; ++t) {
      const auto [image, h, w] = in.At(range.begin + t);
      TransformInput(in, x.typed_data(), zeros, image, h - padding, w - padding,
                     tiles + t * channels, step);
    }
    for (ptrdiff_t start = 0; start < outputs; start += kPanel) {
      const int vectors = VectorsFrom(start, outputs);
      const ptrdiff_t width = vectors * kWidth;
      const float* panel = transformed + start / kPanel * panel_size;
      for (ptrdiff_t e = 0; e < kAll; ++e)
        Products(tiles + e * step, channels, count, panel + e * PanelStep(channels, width),
                 {channels, 1, width}, vectors, sums + e * sum_step, width, true);
      for (ptrdiff_t t = 0; t < count; ++t) {
        const auto [image, h, w] = in.At(range.begin + t);
        TransformOutput(out, sums + t * width, sum_step, width, image, h, w,
                        y->typed_data() + start);
      }
    }
  });
  return ffi::Error::Success();
}

ffi::Error Forward(ffi::ThreadPool pool, Floats x, Floats kernel, int32_t padding, int32_t tile,
                   Result y, Result scratch) {
  if (tile == 2) return ForwardBy<2>(pool, x, kernel, padding, y, scratch);
  return tile == 4 ? ForwardBy<4>(pool, x, kernel, padding, y, scratch) : Refused();
}

template <int N>
ptrdiff_t TilesInWork(ptrdiff_t channels, ptrdiff_t outputs, ptrdiff_t count) {
  const ptrdiff_t fitting = kMapFloats / (Tiles<N>::kAll * std::max(channels, outputs));
  return std::min(count, std::max<ptrdiff_t>(fitting, N == 2 ? 192 : 96));
}

template <int N>
ptrdiff_t KernelScratch(ptrdiff_t channels, ptrdiff_t outputs, ptrdiff_t count) {
  const ptrdiff_t work = TilesInWork<N>(channels, outputs, count);
  return Tiles<N>::kAll * (channels * outputs + work * (channels + outputs) + 3 * kWidth) +
         std::max(channels, outputs);
}

// The kernel's gradient [3, 3, tap] of the sums [kAll][step].
template <int N>
void TransformSums(const ffi::ThreadPool& pool, const float* sums, ptrdiff_t step, ptrdiff_t tap,
                   float* kernel_bar) {
  constexpr int kParts = 16, kSide = Tiles<N>::kSide;
  RunTasks(pool, kParts, [&](int task) {
    const Range range = Part(task, kParts, tap, kWidth);
    for (ptrdiff_t at = range.begin; at < range.end; at += kWidth)
      AlongBothAxes<Winograd<N>::ToKernelGradient, kSide, 3>(
          [&](int i, int j) { return Load(sums + (kSide * i + j) * step + at); },
          [&](int i, int j, Vec all) { Store(kernel_bar + (3 * i + j) * tap + at, all); });
  });
}

// Tiles of both maps are transformed by all threads, then each of the kAll products is taken.
template <int N>
ffi::Error KernelGradientBy(const ffi::ThreadPool& pool, const Floats& x, const Floats& y_bar,
                            int32_t padding, Result& kernel_bar, Result& scratch) {
  constexpr int kAll = Tiles<N>::kAll;
  const auto d = y_bar.dimensions();
  const auto in = TilesOf<N>(x.dimensions(), d[1], d[2]), out = TilesOf<N>(d, d[1], d[2]);
  const ptrdiff_t channels = in.channels, outputs = out.channels, tap = channels * outputs;
  if (channels % kWidth || outputs % kWidth || kernel_bar->dimensions()[0] != 3 ||
      static_cast<ptrdiff_t>(scratch->element_count()) <
          KernelScratch<N>(channels, outputs, in.count()))
    return Refused();
  const ptrdiff_t work = TilesInWork<N>(channels, outputs, in.count());
  const ptrdiff_t step = work * channels + kWidth, by_step = work * outputs + kWidth;
  float* sums = scratch->typed_data();  // [kAll][C, O]
  const ptrdiff_t sum_step = tap + kWidth;
  float* tiles = sums + kAll * sum_step;
  float *by_tiles = tiles + kAll * step, *zeros = by_tiles + kAll * by_step;
  std::fill(zeros, zeros + std::max(channels, outputs), 0.0f);
  const int panels = static_cast<int>((outputs + kPanel - 1) / kPanel);

  constexpr ptrdiff_t kTilesATask = N == 2 ? 16 : 8;
  for (ptrdiff_t begin = 0; begin < in.count(); begin += work) {
    const ptrdiff_t count = std::min(work, in.count() - begin);
    const int groups = static_cast<int>((count + kTilesATask - 1) / kTilesATask);
    RunTasks(pool, groups, [&](int task) {
      const Range range = Part(task, groups, count);
      for (ptrdiff_t t = range.begin; t < range.end; ++t) {
        const auto [image, h, w] = in.At(begin + t);
        TransformInput(in, x.typed_data(), zeros, image, h - padding, w - padding,
                       tiles + t * channels, step);
        TransformOutputGradient(out, y_bar.typed_data(), zeros, image, h, w,
                                by_tiles + t * outputs, by_step);
      }
    });
    RunTasks(pool, kAll * panels, [&](int task) {
      const ptrdiff_t e = task / panels, start = task % panels * kPanel;
      const int vectors = VectorsFrom(start, outputs);
      // Sums of these tiles alone, which round less than one that goes on over all tiles.
      static thread_local std::vector<float> memory;
      memory.resize(std::max<size_t>(memory.size(), channels * kPanel));
      Products(tiles + e * step, 1, channels, by_tiles + e * by_step + start,
               {count, channels, outputs}, vectors, memory.data(), kPanel, true);
      for (ptrdiff_t c = 0; c < channels; ++c)
        for (ptrdiff_t o = 0; o < vectors * kWidth; o += kWidth) {
          float* to = sums + e * sum_step + c * outputs + start + o;
          const Vec of_these = Load(memory.data() + c * kPanel + o);
          Store(to, begin == 0 ? of_these : Load(to) + of_these);
        }
    });
  }
  TransformSums<N>(pool, sums, sum_step, tap, kernel_bar->typed_data());
  return ffi::Error::Success();
}

ffi::Error KernelGradient(ffi::ThreadPool pool, Floats x, Floats y_bar, int32_t padding,
                          int32_t tile, Result kernel_bar, Result scratch) {
  if (tile == 2) return KernelGradientBy<2>(pool, x, y_bar, padding, kernel_bar, scratch);
  return tile == 4 ? KernelGradientBy<4>(pool, x, y_bar, padding, kernel_bar, scratch) : Refused();
}

auto Binding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Floats>()
      .Arg<Floats>()
      .Attr<int32_t>("padding")
      .Attr<int32_t>("tile")
      .Ret<Floats>()
      .Ret<Floats>();
}

}  // namespace

extern "C" int64_t UnifaceWinogradScratch(int64_t channels, int64_t outputs, int64_t tile) {
  return tile == 2 ? ForwardScratch<2>(channels, outputs) : ForwardScratch<4>(channels, outputs);
}

extern "C" int64_t UnifaceWinogradKernelScratch(int64_t channels, int64_t outputs, int64_t tiles,
                                                int64_t tile) {
  return tile == 2 ? KernelScratch<2>(channels, outputs, tiles)
                   : KernelScratch<4>(channels, outputs, tiles);
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(UnifaceWinograd, Forward, Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(UnifaceWinogradKernelGradient, KernelGradient, Binding());

}  // namespace uniface
