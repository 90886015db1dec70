// Batch norm over the rows of x [rows, channels], as models/channels.py's, with the PReLU and the sum
// after it, and the gradient of all that. Either takes two passes over the maps: sums a channel, then
// what is made by them, element by element. Sums are of blocks of rows, in floats, and then of the
// blocks in doubles, in order. What is written may lie where y_bar does.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "exponential.h"
#include "maps.h"
#include "outer_products.h"
#include "tasks.h"
#include "xla/ffi/api/ffi.h"

namespace uniface {
namespace {

namespace ffi = xla::ffi;

constexpr ptrdiff_t kBlockFloats = 1 << 15;  // of a map, a task's: two of them fit a second-level cache
constexpr ptrdiff_t kSums = 3;               // a channel, of a block
constexpr ptrdiff_t kAtOnce = 4;             // rows that are added before their sum is
constexpr ptrdiff_t kFirstRows = 16;         // whose mean is near that of a block

struct Rows {
  ptrdiff_t count, channels;
  int blocks() const {
    const ptrdiff_t wanted = (count * channels + kBlockFloats - 1) / kBlockFloats;
    return static_cast<int>(std::max<ptrdiff_t>(1, std::min(wanted, count)));
  }
  Range Block(int task) const { return Part(task, blocks(), count); }
};

Rows RowsOf(const Floats& x) {
  const auto d = x.dimensions();
  const ptrdiff_t channels = d[d.size() - 1];
  return {channels ? static_cast<ptrdiff_t>(x.element_count()) / channels : 0, channels};
}

// A norm's vectors [channels]; slope, nullptr for no PReLU, is that of what it returns.
struct Norm {
  const float *scale, *bias, *slope, *mean, *inverse;
};

// Of a block's rows less the mean of its first ones: that mean, the sums, and the sums of squares,
// which are no larger than the deviations are, whatever the mean of all is.
void Moments(const float* x, ptrdiff_t rows, ptrdiff_t channels, float* sums) {
  std::memset(sums, 0, kSums * sizeof(float) * channels);
  const ptrdiff_t firsts = std::min(rows, kFirstRows);
  for (ptrdiff_t row = 0; row < firsts; ++row)
    for (ptrdiff_t c = 0; c < channels; c += kWidth)
      Store(sums + c, Load(sums + c) + Load(x + row * channels + c) * Splat(1.0f / firsts));
  float *total = sums + channels, *square = total + channels;
  ptrdiff_t row = 0;
  auto add = [&](ptrdiff_t c, Vec of, Vec of_squares) {
    Store(total + c, Load(total + c) + of);
    Store(square + c, Load(square + c) + of_squares);
  };
  for (; row + kAtOnce <= rows; row += kAtOnce)
    for (ptrdiff_t c = 0; c < channels; c += kWidth) {
      const float* from = x + row * channels + c;
      const Vec first = Load(sums + c), p = Load(from) - first, q = Load(from + channels) - first;
      const Vec r = Load(from + 2 * channels) - first, s = Load(from + 3 * channels) - first;
      add(c, (p + q) + (r + s), (p * p + q * q) + (r * r + s * s));
    }
  for (; row < rows; ++row)
    for (ptrdiff_t c = 0; c < channels; c += kWidth) {
      const Vec p = Load(x + row * channels + c) - Load(sums + c);
      add(c, p, p * p);
    }
}

// Mean and biased variance of all blocks, in two passes over their means.
void Statistics(const Rows& rows, const float* sums, float* mean, float* variance) {
  const ptrdiff_t channels = rows.channels;
  std::vector<double> mean_of(channels), squares(channels);
  auto block_mean = [&](const float* of, ptrdiff_t c, double count) {
    return of[c] + of[channels + c] / count;
  };
  for (int pass = 0; pass < 2; ++pass)
    for (int task = 0; task < rows.blocks(); ++task) {
      const Range block = rows.Block(task);
      const double count = block.end - block.begin;
      const float* of = sums + task * kSums * channels;
      for (ptrdiff_t c = 0; c < channels; ++c) {
        const double within = block_mean(of, c, count);
        if (pass == 0) {
          mean_of[c] += within * (count / rows.count);
          continue;
        }
        const double total = of[channels + c], apart = within - mean_of[c];
        squares[c] += of[2 * channels + c] - total * total / count + count * apart * apart;
      }
    }
  for (ptrdiff_t c = 0; c < channels; ++c) {
    mean[c] = static_cast<float>(mean_of[c]);
    variance[c] = static_cast<float>(squares[c] < 0 ? 0.0 : squares[c] / rows.count);
  }
}

// What PReLU is given: the same bits forward and backward, where its sign chooses the gradient.
struct Channel {
  Vec mean, factor, bias;
  Channel(const Norm& n, ptrdiff_t c)
      : mean(Load(n.mean + c)), factor(Load(n.scale + c) * Load(n.inverse + c)), bias(Load(n.bias + c)) {}
  Vec Normalized(Vec x) const { return (x - mean) * factor + bias; }
};

template <bool kSlope>
void Normalize(const Norm& norm, const float* x, ptrdiff_t rows, ptrdiff_t channels, float* y) {
  for (ptrdiff_t row = 0; row < rows; ++row)
    for (ptrdiff_t c = 0, at = row * channels; c < channels; c += kWidth, at += kWidth) {
      Vec z = Channel(norm, c).Normalized(Load(x + at));
      if (kSlope) z = Select(z >= Vec{}, z, Load(norm.slope + c) * z);
      Store(y + at, z);
    }
}

// A block's sums of the gradient before PReLU, of that times x less its mean, and of the slope's.
template <bool kSlope>
void GradientSums(const Norm& norm, const float* x, const float* y_bar, ptrdiff_t rows,
                  ptrdiff_t channels, float* sums) {
  std::memset(sums, 0, kSums * sizeof(float) * channels);
  auto add = [&](ptrdiff_t row, ptrdiff_t c, ptrdiff_t count) {
    const Channel of(norm, c);
    Vec total{}, centered{}, by_slope{};
    for (ptrdiff_t at = row * channels + c; count > 0; --count, at += channels) {
      const Vec value = Load(x + at);
      Vec z_bar = Load(y_bar + at);
      if (kSlope) {
        const Vec z = of.Normalized(value);
        by_slope += Select(z < Vec{}, z * z_bar, Vec{});
        z_bar = Select(z >= Vec{}, z_bar, Load(norm.slope + c) * z_bar);
      }
      total += z_bar;
      centered += z_bar * (value - of.mean);
    }
    const Vec all[kSums] = {total, centered, by_slope};
    for (int i = 0; i < (kSlope ? 3 : 2); ++i)
      Store(sums + i * channels + c, Load(sums + i * channels + c) + all[i]);
  };
  ptrdiff_t row = 0;
  for (; row + kAtOnce <= rows; row += kAtOnce)
    for (ptrdiff_t c = 0; c < channels; c += kWidth) add(row, c, kAtOnce);
  for (; row < rows; ++row)
    for (ptrdiff_t c = 0; c < channels; c += kWidth) add(row, c, 1);
}

// factor * (z_bar - mean(z_bar) - (x - mean) * along); along: inverse^2 times the mean of
// z_bar * (x - mean).
template <bool kSlope>
void InputGradient(const Norm& norm, const float* mean_bar, const float* along, const float* x,
                   const float* y_bar, ptrdiff_t rows, ptrdiff_t channels, float* x_bar) {
  for (ptrdiff_t row = 0; row < rows; ++row)
    for (ptrdiff_t c = 0, at = row * channels; c < channels; c += kWidth, at += kWidth) {
      const Channel of(norm, c);
      const Vec value = Load(x + at);
      Vec z_bar = Load(y_bar + at);
      if (kSlope)
        z_bar = Select(of.Normalized(value) >= Vec{}, z_bar, Load(norm.slope + c) * z_bar);
      Store(x_bar + at,
            of.factor * (z_bar - Load(mean_bar + c) - (value - of.mean) * Load(along + c)));
    }
}

bool Agreed(const Rows& rows, const Floats& slope, Result& scratch) {
  const ptrdiff_t slopes = slope.element_count(), floats = scratch->element_count();
  return rows.count > 0 && rows.channels % kWidth == 0 && (slopes == 0 || slopes == rows.channels) &&
         floats >= (rows.blocks() * kSums + 2) * rows.channels;
}

ffi::Error Refused() {
  return ffi::Error::InvalidArgument("the batch norm's shapes or scratch are not as agreed");
}

// slope: [channels], or [0] for no PReLU.
ffi::Error Forward(ffi::ThreadPool pool, Floats x, Floats scale, Floats bias, Floats slope,
                   float epsilon, Result y, Result mean, Result variance, Result inverse,
                   Result scratch) {
  const Rows rows = RowsOf(x);
  if (!Agreed(rows, slope, scratch)) return Refused();
  const ptrdiff_t channels = rows.channels;
  const int blocks = rows.blocks();
  float* sums = scratch->typed_data();
  RunTasks(pool, blocks, [&](int task) {
    const Range block = rows.Block(task);
    Moments(x.typed_data() + block.begin * channels, block.end - block.begin, channels,
            sums + task * kSums * channels);
  });
  Statistics(rows, sums, mean->typed_data(), variance->typed_data());
  for (ptrdiff_t c = 0; c < channels; ++c)
    inverse->typed_data()[c] =
        static_cast<float>(1 / std::sqrt(static_cast<double>(variance->typed_data()[c]) + epsilon));
  const bool sloped = slope.element_count();
  const Norm norm{scale.typed_data(), bias.typed_data(), slope.typed_data(), mean->typed_data(),
                  inverse->typed_data()};
  const auto run = sloped ? Normalize<true> : Normalize<false>;
  RunTasks(pool, blocks, [&](int task) {  // those first that were read last
    const Range block = rows.Block(blocks - 1 - task);
    const ptrdiff_t at = block.begin * channels;
    run(norm, x.typed_data() + at, block.end - block.begin, channels, y->typed_data() + at);
  });
  return ffi::Error::Success();
}

ffi::Error Gradient(ffi::ThreadPool pool, Floats x, Floats y_bar, Floats scale, Floats bias,
                    Floats slope, Floats mean, Floats inverse, Result x_bar, Result scale_bar,
                    Result bias_bar, Result slope_bar, Result scratch) {
  const Rows rows = RowsOf(x);
  if (!Agreed(rows, slope, scratch)) return Refused();
  const ptrdiff_t channels = rows.channels;
  const int blocks = rows.blocks();
  const bool sloped = slope.element_count();
  const Norm norm{scale.typed_data(), bias.typed_data(), slope.typed_data(), mean.typed_data(),
                  inverse.typed_data()};
  float* sums = scratch->typed_data();
  RunTasks(pool, blocks, [&](int task) {
    const Range block = rows.Block(task);
    const ptrdiff_t at = block.begin * channels;
    (sloped ? GradientSums<true> : GradientSums<false>)(
        norm, x.typed_data() + at, y_bar.typed_data() + at, block.end - block.begin, channels,
        sums + task * kSums * channels);
  });
  float *mean_bar = sums + blocks * kSums * channels, *along = mean_bar + channels;
  std::vector<double> totals(kSums * channels);
  for (int task = 0; task < blocks; ++task)
    for (ptrdiff_t i = 0; i < kSums * channels; ++i) totals[i] += sums[task * kSums * channels + i];
  for (ptrdiff_t c = 0; c < channels; ++c) {
    const double total = totals[c], centered = totals[channels + c], by = norm.inverse[c];
    bias_bar->typed_data()[c] = static_cast<float>(total);
    scale_bar->typed_data()[c] = static_cast<float>(centered * by);
    if (sloped) slope_bar->typed_data()[c] = static_cast<float>(totals[2 * channels + c]);
    mean_bar[c] = static_cast<float>(total / rows.count);
    along[c] = static_cast<float>(centered * by * by / rows.count);
  }
  const auto run = sloped ? InputGradient<true> : InputGradient<false>;
  RunTasks(pool, blocks, [&](int task) {
    const Range block = rows.Block(blocks - 1 - task);
    const ptrdiff_t at = block.begin * channels;
    run(norm, mean_bar, along, x.typed_data() + at, y_bar.typed_data() + at,
        block.end - block.begin, channels, x_bar->typed_data() + at);
  });
  return ffi::Error::Success();
}

}  // namespace

extern "C" int64_t UnifaceBatchNormScratch(int64_t rows, int64_t channels) {
  return (Rows{rows, channels}.blocks() * kSums + 2) * channels;
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(UnifaceBatchNorm, Forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Attr<float>("epsilon")
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(UnifaceBatchNormGradient, Gradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());

}  // namespace uniface
