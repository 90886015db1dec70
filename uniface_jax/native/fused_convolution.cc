// Convolutions of a trained network with what stands around them, for features alone:
//     y = prelu(conv(x before[0] + before[1]; kernel after[0]) + after[1]; slopes after[2]) + added
// with an affine map of x by channel inside of its frame (padding is of zeros behind it), the
// kernel's outputs scaled, a bias, and a map to add. So batch norm, PReLU and the addition of a
// residual block read and write no map of their own. 3x3 kernels of stride 1 by Winograd's
// F(4x4, 3x3) (Lavin and Gray, CVPR 2016), all others by the products of outer_products.h.

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

constexpr ptrdiff_t kPositions = 96;        // of a direct convolution's task
constexpr ptrdiff_t kFewestTiles = 32, kMostTiles = 48;  // of Winograd's
constexpr ptrdiff_t kTaskFloats = 1 << 18;  // transformed, before and after the products
constexpr int kOut = 4, kIn = 6, kAll = kIn * kIn;  // of a tile

// What is done to the result of a convolution, at the offset of a channel in its map.
struct After {
  const float *bias, *slope, *added;  // added: nullptr for none
  void Write(Vec v, ptrdiff_t channel, ptrdiff_t offset, float* y) const {
    v += Load(bias + channel);
    v = v >= Vec{} ? v : v * Load(slope + channel);
    Store(y + offset, added ? v + Load(added + offset) : v);
  }
};

struct Call {
  Problem p;
  const float *x, *kernel, *scale, *shift, *factor;  // scale, shift: nullptr for none
  After after;
  float *y, *scratch, *zeros;
};

struct Place {
  ptrdiff_t image, h, w;
};
inline Place PlaceOf(ptrdiff_t number, ptrdiff_t down, ptrdiff_t across) {
  return {number / (down * across), number % (down * across) / across, number % across};
}

// A tile's positions of x, from its first on, of which any may be beyond the borders.
template <bool kScaled>
void TransformInput(const Call& call, Place first, float* to, ptrdiff_t step) {
  const Map& map = call.p.in;
  const float *at[kIn][kIn], *shift[kIn][kIn];
  for (ptrdiff_t i = 0; i < kIn; ++i)
    for (ptrdiff_t j = 0; j < kIn; ++j) {
      const ptrdiff_t h = first.h + i, w = first.w + j;
      const bool inside = h >= 0 && h < map.height && w >= 0 && w < map.width;
      at[i][j] = inside ? call.x + ((first.image * map.height + h) * map.width + w) * map.channels
                        : call.zeros;
      shift[i][j] = inside ? call.shift : call.zeros;
    }
  for (ptrdiff_t c = 0; c < map.channels; c += kWidth) {
    const Vec scale = kScaled ? Load(call.scale + c) : Vec{};
    AlongBothAxes<Winograd<kOut>::OfInput, kIn, kIn>(
        [&](int i, int j) {
          const Vec x = Load(at[i][j] + c);
          if constexpr (kScaled) return x * scale + Load(shift[i][j] + c);
          return x;
        },
        [&](int i, int j, Vec all) { Store(to + (i * kIn + j) * step + c, all); });
  }
}

// kernel [3, 3, C, O] for channels of a task, the panel of outputs from `start`, to [36][C, panel].
void TransformKernel(const Call& call, Range channels, ptrdiff_t start) {
  const ptrdiff_t inputs = call.p.in.channels, outputs = call.p.out.channels;
  const ptrdiff_t width = VectorsFrom(start, outputs) * kWidth, tap = inputs * outputs;
  const ptrdiff_t step = PanelStep(inputs, width);
  float* to = call.scratch + kAll * PanelStep(inputs, kPanel) * (start / kPanel);
  for (ptrdiff_t c = channels.begin; c < channels.end; ++c)
    for (ptrdiff_t o = 0; o < width; o += kWidth) {
      const float* g = call.kernel + c * outputs + start + o;
      const Vec factor = Load(call.factor + start + o);
      AlongBothAxes<Winograd<kOut>::OfKernel, 3, kIn>(
          [&](int i, int j) { return factor * Load(g + (3 * i + j) * tap); },
          [&](int i, int j, Vec all) { Store(to + (i * kIn + j) * step + c * width + o, all); });
    }
}

// A tile's sums, [36][step], to its outputs from its first on.
void TransformOutput(const Call& call, const float* sums, ptrdiff_t step, Place first) {
  const Map& map = call.p.out;
  const ptrdiff_t corner = ((first.image * map.height + first.h) * map.width + first.w) * map.channels;
  const int down = std::min<ptrdiff_t>(kOut, map.height - first.h);
  const int right = std::min<ptrdiff_t>(kOut, map.width - first.w);
  for (ptrdiff_t c = 0; c < map.channels; c += kWidth) {
    Vec rows[kOut][kIn];
#pragma GCC unroll 6
    for (int j = 0; j < kIn; ++j) {
      Vec column[kIn], all[kOut];
#pragma GCC unroll 6
      for (int i = 0; i < kIn; ++i) column[i] = Load(sums + (i * kIn + j) * step + c);
      Winograd<kOut>::ToOutput(column, all);
#pragma GCC unroll 4
      for (int i = 0; i < kOut; ++i) rows[i][j] = all[i];
    }
    for (int i = 0; i < down; ++i) {
      Vec row[kOut];
      Winograd<kOut>::ToOutput(rows[i], row);
      for (int j = 0; j < right; ++j)
        call.after.Write(row[j], c, corner + (i * map.width + j) * map.channels + c, call.y);
    }
  }
}

void ByTiles(const ffi::ThreadPool& pool, const Call& call) {
  const Map &in = call.p.in, &out = call.p.out;
  const ptrdiff_t channels = in.channels, outputs = out.channels;
  const ptrdiff_t down = (out.height + kOut - 1) / kOut, across = (out.width + kOut - 1) / kOut;
  const ptrdiff_t count = out.batch * down * across;
  const int panels = static_cast<int>((outputs + kPanel - 1) / kPanel), parts = 4;
  RunTasks(pool, panels * parts, [&](int task) {
    TransformKernel(call, Part(task % parts, parts, channels), task / parts * kPanel);
  });
  const ptrdiff_t fitting = kTaskFloats / (kAll * (channels + outputs));
  const ptrdiff_t most = std::clamp(fitting, kFewestTiles, kMostTiles);
  const int tasks = static_cast<int>((count + most - 1) / most);
  RunTasks(pool, tasks, [&](int task) {
    static thread_local std::vector<float> memory;  // kept: fresh pages are slow
    const ptrdiff_t step = most * channels + kWidth, sum_step = most * outputs + kWidth;
    memory.resize(std::max<size_t>(memory.size(), kAll * (step + sum_step)));
    float *tiles = memory.data(), *sums = tiles + kAll * step;
    const Range range = Part(task, tasks, count);
    const ptrdiff_t taken = range.end - range.begin;
    auto first = [&](ptrdiff_t t) {
      const Place at = PlaceOf(range.begin + t, down, across);
      return Place{at.image, at.h * kOut, at.w * kOut};
    };
    for (ptrdiff_t t = 0; t < taken; ++t) {
      Place at = first(t);
      at.h -= call.p.padding;
      at.w -= call.p.padding;
      if (call.scale)
        TransformInput<true>(call, at, tiles + t * channels, step);
      else
        TransformInput<false>(call, at, tiles + t * channels, step);
    }
    for (ptrdiff_t e = 0; e < kAll; ++e)
      for (ptrdiff_t start = 0; start < outputs; start += kPanel) {
        const int vectors = VectorsFrom(start, outputs);
        const ptrdiff_t width = vectors * kWidth;
        Products(tiles + e * step, channels, taken,
                 call.scratch + kAll * PanelStep(channels, kPanel) * (start / kPanel) +
                     e * PanelStep(channels, width),
                 {channels, 1, width}, vectors, sums + e * sum_step + start, outputs, true);
      }
    for (ptrdiff_t t = 0; t < taken; ++t)
      TransformOutput(call, sums + t * outputs, sum_step, first(t));
  });
}

// Up to kRows outputs, the positions from `begin` on, a panel of channels from `start`.
void DirectTile(const Call& call, Range positions, ptrdiff_t start) {
  const Problem& p = call.p;
  const Map &in = p.in, &out = p.out;
  const int vectors = VectorsFrom(start, out.channels);
  const int taken = static_cast<int>(positions.end - positions.begin);
  const ptrdiff_t width = vectors * kWidth, row_size = in.width * in.channels;
  const float* panel = call.scratch + start * p.taps * p.taps * in.channels;
  float sums[kRows * kPanel];
  const float* from[kRows];
  Place first[kRows];
  bool inside = true;
  for (int r = 0; r < taken; ++r) {
    const Place at = PlaceOf(positions.begin + r, out.height, out.width);
    first[r] = {at.image, at.h * p.stride - p.padding, at.w * p.stride - p.padding};
    inside &= first[r].h >= 0 && first[r].h + p.taps <= in.height && first[r].w >= 0 &&
              first[r].w + p.taps <= in.width;
    from[r] = call.x + (first[r].image * in.height + first[r].h) * row_size + first[r].w * in.channels;
  }
  const ptrdiff_t length = p.taps * in.channels;
  if (inside)
    Outer(taken, vectors, from, panel, {length, 1, width, p.taps, row_size - length, 0}, sums, kPanel,
          true);
  else
    for (ptrdiff_t tap = 0; tap < p.taps * p.taps; ++tap) {
      for (int r = 0; r < taken; ++r) {
        const ptrdiff_t h = first[r].h + tap / p.taps, w = first[r].w + tap % p.taps;
        const bool there = h >= 0 && h < in.height && w >= 0 && w < in.width;
        from[r] = there ? call.x + (first[r].image * in.height + h) * row_size + w * in.channels
                        : call.zeros;
      }
      Outer(taken, vectors, from, panel + tap * in.channels * width, {in.channels, 1, width}, sums,
            kPanel, tap == 0);
    }
  for (int r = 0; r < taken; ++r)
    for (ptrdiff_t c = 0; c < width; c += kWidth)
      call.after.Write(Load(sums + r * kPanel + c), start + c,
                       (positions.begin + r) * out.channels + start + c, call.y);
}

void Direct(const ffi::ThreadPool& pool, const Call& call) {
  const Problem& p = call.p;
  const ptrdiff_t rows = p.taps * p.taps * p.in.channels, columns = p.out.channels;
  RunTasks(pool, static_cast<int>((columns + kPanel - 1) / kPanel), [&](int task) {
    const ptrdiff_t start = task * kPanel, width = VectorsFrom(start, columns) * kWidth;
    float* to = call.scratch + start * rows;
    for (ptrdiff_t row = 0; row < rows; ++row, to += width)
      for (ptrdiff_t c = start; c < start + width; c += kWidth)
        Store(to + c - start, Load(call.kernel + row * columns + c) * Load(call.factor + c));
  });
  const ptrdiff_t positions = p.out.batch * p.out.height * p.out.width;
  const int tasks = static_cast<int>((positions + kPositions - 1) / kPositions);
  RunTasks(pool, tasks, [&](int task) {
    const Range range = Part(task, tasks, positions, kRows);
    for (ptrdiff_t start = 0; start < columns; start += kPanel)
      for (ptrdiff_t at = range.begin; at < range.end; at += kRows)
        DirectTile(call, {at, std::min<ptrdiff_t>(at + kRows, range.end)}, start);
  });
}

// Of the kernel as it is multiplied; a position's zeros lie behind it.
ptrdiff_t KernelFloats(ptrdiff_t taps, ptrdiff_t channels, ptrdiff_t outputs, bool winograd) {
  const ptrdiff_t panels = (outputs + kPanel - 1) / kPanel;
  return winograd ? kAll * PanelStep(channels, kPanel) * panels : taps * taps * channels * outputs;
}

ffi::Error Fused(ffi::ThreadPool pool, Floats x, Floats kernel, Floats before, Floats after,
                 Floats added, int32_t stride, int32_t padding, int32_t winograd, Result y,
                 Result scratch) {
  const Problem p{MapOf(x.dimensions()), MapOf(y->dimensions()), kernel.dimensions()[0], stride,
                  padding};
  const ptrdiff_t channels = p.in.channels, outputs = p.out.channels;
  const ptrdiff_t size = KernelFloats(p.taps, channels, outputs, winograd);
  const auto count = [](const Floats& of) { return static_cast<ptrdiff_t>(of.element_count()); };
  if ((winograd && (p.taps != 3 || stride != 1 || channels % kWidth)) || outputs % kWidth ||
      static_cast<ptrdiff_t>(scratch->element_count()) < size + channels ||
      count(after) != 3 * outputs || (count(before) && !(winograd && count(before) == 2 * channels)) ||
      (count(added) && count(added) != static_cast<ptrdiff_t>(y->element_count())))
    return ffi::Error::InvalidArgument("the convolution's shapes or scratch are not as agreed");
  const float *scale = count(before) ? before.typed_data() : nullptr, *factor = after.typed_data();
  const Call call{p, x.typed_data(), kernel.typed_data(), scale, scale ? scale + channels : nullptr,
                  factor, {factor + outputs, factor + 2 * outputs,
                           count(added) ? added.typed_data() : nullptr},
                  y->typed_data(), scratch->typed_data(), scratch->typed_data() + size};
  std::fill(call.zeros, call.zeros + channels, 0.0f);
  winograd ? ByTiles(pool, call) : Direct(pool, call);
  return ffi::Error::Success();
}

}  // namespace

extern "C" int64_t UnifaceFusedScratch(int64_t taps, int64_t channels, int64_t outputs,
                                       int64_t winograd) {
  return KernelFloats(taps, channels, outputs, winograd != 0) + channels;
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(UnifaceFusedConvolution, Fused,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Attr<int32_t>("stride")
                                  .Attr<int32_t>("padding")
                                  .Attr<int32_t>("winograd")
                                  .Ret<Floats>()
                                  .Ret<Floats>());

}  // namespace uniface
