// Convolutions in groups of D = 1, 2 or 4 channels in and out, of maps [B, H, W, C] to as many
// channels, as models/depthwise.py's, and their gradients. The kernel comes by diagonals,
// [h, w, D, C]: the weight d of an output channel c meets the input channel c ^ d. So a position's
// channels are taken by vectors, and every map is read and written where it lies. For features alone
// there is one with what stands behind it: y = prelu(conv(x; kernel) + after[0]; slopes after[1]).

#include <cstdint>
#include <cstring>

#include "maps.h"
#include "outer_products.h"
#include "tasks.h"
#include "xla/ffi/api/ffi.h"

namespace uniface {
namespace {

namespace ffi = xla::ffi;

constexpr ptrdiff_t kMostTaps = 7;  // of a kernel's side
constexpr ptrdiff_t kColumns = 4;   // of positions that share a load of the weights
constexpr ptrdiff_t kTapsBeside = 3;

// v[i ^ d], i being the number of an element.
template <int d>
inline Vec Exchanged(Vec v) {
  if constexpr (d == 0) return v;
#if defined(__clang__)
  Vec result;
#pragma clang loop unroll(full)
  for (int i = 0; i < kWidth; ++i) result[i] = v[i ^ d];
  return result;
#else
  IntVec from{};
#pragma GCC unroll 16
  for (int i = 0; i < kWidth; ++i) from[i] = i ^ d;
  return __builtin_shuffle(v, from);
#endif
}

// sums[d] += x exchanged by d, times weights[d].
template <int D>
inline void AddTerms(Vec x, const Vec* weights, Vec* sum) {
  *sum += x * weights[0];
  if constexpr (D > 1) *sum += Exchanged<1>(x) * weights[1];
  if constexpr (D > 2) *sum += Exchanged<2>(x) * weights[2] + Exchanged<3>(x) * weights[3];
}

// The positions of a map that a position's taps meet, and the taps' weights.
struct Met {
  int count = 0;
  const float *map[kMostTaps * kMostTaps], *weight[kMostTaps * kMostTaps];
  void Add(const float* of_map, const float* of_weight) {
    map[count] = of_map;
    weight[count++] = of_weight;
  }
};

// What a sum becomes before it is written, at its channel.
struct Plain {
  Vec operator()(Vec sum, ptrdiff_t) const { return sum; }
};
struct BiasAndPReLU {
  const float *bias, *slope;
  Vec operator()(Vec sum, ptrdiff_t channel) const {
    sum += Load(bias + channel);
    return sum >= Vec{} ? sum : sum * Load(slope + channel);
  }
};

// Columns `to`, to_step apart, of what is met at `met` and, for the next one, `step` behind that.
template <int D, int N, typename After = Plain>
void Columns(const Met& met, ptrdiff_t step, ptrdiff_t channels, float* to, ptrdiff_t to_step,
             const After& after = {}) {
  for (ptrdiff_t c = 0; c < channels; c += kWidth) {
    Vec sums[N] = {};
    for (int k = 0; k < met.count; ++k) {
      Vec weights[D];
#pragma GCC unroll 4
      for (int d = 0; d < D; ++d) weights[d] = Load(met.weight[k] + d * channels + c);
      const float* map = met.map[k] + c;
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) AddTerms<D>(Load(map + n * step), weights, &sums[n]);
    }
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) Store(to + n * to_step + c, after(sums[n], c));
  }
}

// One row of outputs.
template <int D, typename After>
void OutputRow(const Problem& p, const float* x, const float* kernel, const After& after,
               ptrdiff_t image, ptrdiff_t h, float* y) {
  const Map &in = p.in, &out = p.out;
  const ptrdiff_t channels = in.channels, tap_size = D * channels;
  const ptrdiff_t first = h * p.stride - p.padding;  // the row of x at the first tap
  const Range rows{std::max<ptrdiff_t>(0, -first), std::min(p.taps, in.height - first)};
  float* row = y + (image * out.height + h) * out.width * channels;
  for (ptrdiff_t w = 0; w < out.width;) {
    const ptrdiff_t left = w * p.stride - p.padding;
    const ptrdiff_t last = left + (kColumns - 1) * p.stride + p.taps;
    const bool many = left >= 0 && last <= in.width && w + kColumns <= out.width;
    const Range columns{std::max<ptrdiff_t>(0, -left), std::min(p.taps, in.width - left)};
    Met met;
    for (ptrdiff_t i = rows.begin; i < rows.end; ++i)
      for (ptrdiff_t j = columns.begin; j < columns.end; ++j)
        met.Add(x + ((image * in.height + first + i) * in.width + left + j) * channels,
                kernel + (i * p.taps + j) * tap_size);
    if (many)
      Columns<D, kColumns>(met, p.stride * channels, channels, row + w * channels, channels, after);
    else
      Columns<D, 1>(met, 0, channels, row + w * channels, channels, after);
    w += many ? kColumns : 1;
  }
}

// One row of the gradient by x, where the strides leave every stride-th tap for a position. The
// kernel comes transposed.
template <int D>
void InputRow(const Problem& p, const float* y_bar, const float* kernel, ptrdiff_t image,
              ptrdiff_t h, float* x_bar) {
  const Map &in = p.in, &out = p.out;
  const ptrdiff_t channels = in.channels, tap_size = D * channels;
  float* row = x_bar + (image * in.height + h) * in.width * channels;
  for (ptrdiff_t w = 0; w < in.width; ++w) {
    Met met;
    for (ptrdiff_t i = (h + p.padding) % p.stride; i < p.taps; i += p.stride) {
      const ptrdiff_t from_h = h + p.padding - i;
      if (from_h < 0 || from_h / p.stride >= out.height) continue;
      for (ptrdiff_t j = (w + p.padding) % p.stride; j < p.taps; j += p.stride) {
        const ptrdiff_t from_w = w + p.padding - j;
        if (from_w < 0 || from_w / p.stride >= out.width) continue;
        met.Add(y_bar + ((image * out.height + from_h / p.stride) * out.width +
                         from_w / p.stride) * channels,
                kernel + (i * p.taps + j) * tap_size);
      }
    }
    Columns<D, 1>(met, 0, channels, row + w * channels, channels);
  }
}

// Adds to J taps' parts of the kernel's gradient, [J, D, C], what `count` positions of y_bar give.
template <int D, int J>
void AddProducts(const float* x, ptrdiff_t x_step, const float* y_bar, ptrdiff_t count,
                 ptrdiff_t channels, float* sums) {
  for (ptrdiff_t c = 0; c < channels; c += kWidth) {
    Vec own[J][D];
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j)
#pragma GCC unroll 4
      for (int d = 0; d < D; ++d) own[j][d] = Load(sums + (j * D + d) * channels + c);
    const float *at = x + c, *by = y_bar + c;
    for (ptrdiff_t n = 0; n < count; ++n, at += x_step, by += channels) {
      const Vec factor = Load(by);
#pragma GCC unroll 4
      for (int j = 0; j < J; ++j) {
        const Vec met = Load(at + j * channels);
        own[j][0] += met * factor;
        if constexpr (D > 1) own[j][1] += Exchanged<1>(met) * factor;
        if constexpr (D > 2) {
          own[j][2] += Exchanged<2>(met) * factor;
          own[j][3] += Exchanged<3>(met) * factor;
        }
      }
    }
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j)
#pragma GCC unroll 4
      for (int d = 0; d < D; ++d) Store(sums + (j * D + d) * channels + c, own[j][d]);
  }
}

// Adds what a row of outputs gives to the kernel's gradient, [h, w, D, C].
template <int D>
void AddRow(const Problem& p, const float* x, const float* y_bar, ptrdiff_t image, ptrdiff_t h,
            float* sums) {
  const Map &in = p.in, &out = p.out;
  const ptrdiff_t channels = in.channels, tap_size = D * channels, step = p.stride * channels;
  const float* by = y_bar + (image * out.height + h) * out.width * channels;
  for (ptrdiff_t i = 0; i < p.taps; ++i) {
    const ptrdiff_t from_h = h * p.stride + i - p.padding;
    if (from_h < 0 || from_h >= in.height) continue;
    const float* of_row = x + (image * in.height + from_h) * in.width * channels;
    for (ptrdiff_t j = 0; j < p.taps;) {
      const Range all{0, out.width};
      Range shared = Reached(p, j, in.width, all);
      const ptrdiff_t beside = p.taps - j >= kTapsBeside ? kTapsBeside : 1;
      shared.end = std::max(shared.begin, Reached(p, j + beside - 1, in.width, all).end);
      auto add = [&](auto taps, ptrdiff_t tap, Range w) {
        if (w.begin < w.end)
          AddProducts<D, decltype(taps)::value>(
              of_row + (w.begin * p.stride + tap - p.padding) * channels, step,
              by + w.begin * channels, w.end - w.begin, channels,
              sums + (i * p.taps + tap) * tap_size);
      };
      using One = std::integral_constant<int, 1>;
      using Many = std::integral_constant<int, kTapsBeside>;
      if (beside == 1) {
        add(One{}, j, Reached(p, j, in.width, all));
      } else {
        add(Many{}, j, shared);
        for (ptrdiff_t tap = j; tap < j + beside; ++tap) {  // at the borders, each on its own
          const Range own = Reached(p, tap, in.width, all);
          add(One{}, tap, {own.begin, std::min(own.end, shared.begin)});
          add(One{}, tap, {std::max(own.begin, shared.end), own.end});
        }
      }
      j += beside;
    }
  }
}

// run(integral_constant D) for the D of a kernel by diagonals; false where there is none.
template <typename Run>
bool ForDiagonals(ptrdiff_t diagonals, const Run& run) {
  switch (diagonals) {
    case 1: run(std::integral_constant<int, 1>{}); return true;
    case 2: run(std::integral_constant<int, 2>{}); return true;
    case 4: run(std::integral_constant<int, 4>{}); return true;
  }
  return false;
}

bool Suits(const Problem& p, ffi::Span<const int64_t> kernel) {
  return p.in.channels % kWidth == 0 && p.out.channels == p.in.channels && p.taps <= kMostTaps &&
         kernel[1] == p.taps && kernel[3] == p.in.channels;
}

ffi::Error Refused() {
  return ffi::Error::InvalidArgument("the convolution's shapes or scratch are not as agreed");
}

// row(D, line's image and number in it) for all lines of a map, a few lines a task.
template <typename Row>
ffi::Error ByRows(const ffi::ThreadPool& pool, const Problem& p, const Map& to,
                  ffi::Span<const int64_t> kernel, const Row& row) {
  if (!Suits(p, kernel)) return Refused();
  const ptrdiff_t lines = to.batch * to.height;
  const int tasks = static_cast<int>((lines + kRowsInWork - 1) / kRowsInWork);
  const bool known = ForDiagonals(kernel[2], [&](auto diagonals) {
    RunTasks(pool, tasks, [&](int task) {
      const Range range = Part(task, tasks, lines);
      for (ptrdiff_t line = range.begin; line < range.end; ++line)
        row(diagonals, line / to.height, line % to.height);
    });
  });
  return known ? ffi::Error::Success() : Refused();
}

template <typename After>
ffi::Error Outputs(const ffi::ThreadPool& pool, const Floats& x, const Floats& kernel,
                   const After& after, int32_t stride, int32_t padding, Result y) {
  const Problem p{MapOf(x.dimensions()), MapOf(y->dimensions()), kernel.dimensions()[0], stride,
                  padding};
  return ByRows(pool, p, p.out, kernel.dimensions(), [&](auto d, ptrdiff_t image, ptrdiff_t h) {
    OutputRow<decltype(d)::value>(p, x.typed_data(), kernel.typed_data(), after, image, h,
                                  y->typed_data());
  });
}

ffi::Error Forward(ffi::ThreadPool pool, Floats x, Floats kernel, int32_t stride, int32_t padding,
                   Result y) {
  return Outputs(pool, x, kernel, Plain{}, stride, padding, y);
}

ffi::Error Fused(ffi::ThreadPool pool, Floats x, Floats kernel, int32_t stride, int32_t padding,
                 Floats after, Result y) {
  const ptrdiff_t channels = x.dimensions()[3];
  if (static_cast<ptrdiff_t>(after.element_count()) != 2 * channels) return Refused();
  const float* bias = after.typed_data();
  return Outputs(pool, x, kernel, BiasAndPReLU{bias, bias + channels}, stride, padding, y);
}

ffi::Error InputGradient(ffi::ThreadPool pool, Floats y_bar, Floats transposed, int32_t stride,
                         int32_t padding, Result x_bar) {
  const Problem p{MapOf(x_bar->dimensions()), MapOf(y_bar.dimensions()),
                  transposed.dimensions()[0], stride, padding};
  return ByRows(pool, p, p.in, transposed.dimensions(),
                [&](auto d, ptrdiff_t image, ptrdiff_t h) {
                  InputRow<decltype(d)::value>(p, y_bar.typed_data(), transposed.typed_data(),
                                               image, h, x_bar->typed_data());
                });
}

// Every part of the rows has sums of its own in scratch memory, [parts, kernel].
ffi::Error KernelGradient(ffi::ThreadPool pool, Floats x, Floats y_bar, int32_t stride,
                          int32_t padding, int32_t parts, Result kernel_bar, Result scratch) {
  const auto kernel = kernel_bar->dimensions();
  const Problem p{MapOf(x.dimensions()), MapOf(y_bar.dimensions()), kernel[0], stride, padding};
  const ptrdiff_t size = static_cast<ptrdiff_t>(kernel_bar->element_count());
  if (!Suits(p, kernel) || static_cast<ptrdiff_t>(scratch->element_count()) < parts * size)
    return Refused();
  float* sums = scratch->typed_data();
  const bool known = ForDiagonals(kernel[2], [&](auto diagonals) {
    RunTasks(pool, parts, [&](int task) {
      float* own = sums + task * size;
      std::memset(own, 0, sizeof(float) * size);
      const Range lines = Part(task, parts, p.out.batch * p.out.height);
      for (ptrdiff_t line = lines.begin; line < lines.end; ++line)
        AddRow<decltype(diagonals)::value>(p, x.typed_data(), y_bar.typed_data(),
                                           line / p.out.height, line % p.out.height, own);
    });
  });
  if (!known) return Refused();
  SumParts(pool, parts, sums, size, kernel_bar->typed_data());
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(UnifaceDepthwise, Forward, ConvolutionBinding().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(UnifaceFusedGrouped, Fused,
                              ConvolutionBinding().Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(UnifaceDepthwiseInputGradient, InputGradient,
                              ConvolutionBinding().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    UnifaceDepthwiseKernelGradient, KernelGradient,
    ConvolutionBinding().Attr<int32_t>("parts").Ret<Floats>().Ret<Floats>());

}  // namespace uniface
