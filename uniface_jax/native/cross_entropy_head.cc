// The negatives of UCE and BCE over one shard of prototypes: loss and all gradients in one pass,
// as head/blocks.py's additive_pass, which is the reference for every number here.
//
// With unit directions f_i, w_j = W_j/|W_j| and g_ij = dL/dcos_ij, for each block of classes:
//   1. cos_ji = W_j·f_i / |W_j|             a tile [block, B]
//   2. value, slope g_ji / |W_j|            in place
//   3. P_j = sum_i g_ji f_i / |W_j|, dL/dW_j = P_j - (P_j·w_j) w_j
//   4. dL/df_i += sum_j g_ji / |W_j| W_j
// A sample's own class takes part with the cosine FILL = -1; head/loss.py takes it out again.
// Step 3 is left out where the result has no rows for dL/dW: the prototypes are frozen.

#include <cmath>
#include <cstdint>
#include <cstring>

#include "exponential.h"
#include "outer_products.h"
#include "tasks.h"
#include "xla/ffi/api/ffi.h"

namespace uniface {
namespace {

namespace ffi = xla::ffi;

constexpr float kFill = -1.0f, kNormFloor = 1e-5f;
constexpr float kNormCeiling = 1.8e19f;  // whose square is finite, as in head/blocks.py
constexpr int kBlock = 96;   // classes: tiles of kRows, and a block's arrays fit a core's cache
constexpr int kTotals = 16;  // floats that hold a task's Totals

// What scratch memory holds, in floats.
struct Layout {
  ptrdiff_t batch, padded, dimension;
  ptrdiff_t row() const { return padded + kWidth; }  // of the tile: no power of two
  ptrdiff_t directions() const { return padded * dimension; }
  ptrdiff_t of_task() const { return directions() + kBlock * (row() + kPanel + 2) + kTotals; }
  ptrdiff_t whole(ptrdiff_t tasks, bool frozen) const {
    return (frozen ? 1 : 2) * directions() + tasks * of_task();
  }
};

Layout LayoutOf(ptrdiff_t batch, ptrdiff_t dimension) {
  return {batch, (batch + kWidth - 1) / kWidth * kWidth, dimension};
}

struct ValueAndSlope {
  Vec value, slope;
};

// softplus(z) and its slope. log1p(e) = 2 artanh(e / (2 + e)) by its series, relatively exact.
inline ValueAndSlope Softplus(Vec z) {
  const Vec zero = {}, one = Splat(1.0f);
  const Vec e = ExpOfNegative(Select(z >= zero, z, -z));
  const Vec a = one + e, b = Splat(2.0f) + e;
  const Vec both = one / (a * b);
  const Vec t = e * a * both, sigmoid = b * both;
  const Vec u = t * t;
  Vec p = Splat(1.0f / 15);
  p = p * u + Splat(1.0f / 13);
  p = p * u + Splat(1.0f / 11);
  p = p * u + Splat(1.0f / 9);
  p = p * u + Splat(1.0f / 7);
  p = p * u + Splat(1.0f / 5);
  p = p * u + Splat(1.0f / 3);
  p = p * u + one;
  return {Select(z > zero, z, zero) + Splat(2.0f) * t * p, Select(z >= zero, sigmoid, e * sigmoid)};
}

struct Problem {
  Layout layout;
  ptrdiff_t classes;
  const float *directions, *weight, *bias;
  const int32_t* position;
  const bool* valid;
  bool bias_of_class;
  float scale, negative_weight, factor;
  float* weight_bar;  // null where the prototypes are frozen
  float *bias_bar, *transposed;
  float* panels;  // these two: of the directions; panels, for dL/dW, null as weight_bar
};

struct Totals {
  double loss, bias_bar;
  int64_t above;
  float max_negative;
};
static_assert(sizeof(Totals) <= kTotals * sizeof(float));
constexpr Totals kNothing = {0, 0, 0, kFill};

inline float Dot(const float* a, const float* b, ptrdiff_t size) {
  Vec sum[4] = {};
  ptrdiff_t i = 0;
  for (; i + 4 * kWidth <= size; i += 4 * kWidth)
    for (int v = 0; v < 4; ++v) sum[v] += Load(a + i + v * kWidth) * Load(b + i + v * kWidth);
  for (; i < size; i += kWidth) sum[0] += Load(a + i) * Load(b + i);
  return Sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// Turns a class's products with the batch into its slopes, and adds up what comes with them.
void Element(const Problem& p, ptrdiff_t index, float inverse, float* row, Totals* totals) {
  const float bias = p.bias[p.bias_of_class ? index : 0];
  const float slope = p.scale * p.negative_weight * p.factor * inverse;
  const Vec limit = Splat(p.scale), threshold = Splat(bias / p.scale), fill = Splat(kFill);
  Vec losses = {}, slopes = {}, highest = fill;
  IntVec above = {};
  for (ptrdiff_t i = 0; i < p.layout.padded; i += kWidth) {
    Vec cos = Load(row + i) * Splat(inverse);
    cos = Select(cos < fill, fill, cos);
    cos = Select(cos > -fill, -fill, cos);
    const Vec z = cos * limit - Splat(bias);
    IntVec inside = (z >= -limit) & (z <= limit);
    const Vec low = Select(z < -limit, -limit, z);
    ValueAndSlope terms = Softplus(Select(low > limit, limit, low));
    if (i + kWidth > p.layout.batch) {  // padding columns
      IntVec live;
      for (int lane = 0; lane < kWidth; ++lane) live[lane] = i + lane < p.layout.batch ? -1 : 0;
      inside &= live;
      terms.value = Select(live, terms.value, Vec{});
      cos = Select(live, cos, fill);
      above -= (cos > threshold) & live;
    } else {
      above -= cos > threshold;
    }
    const Vec sigmoid = Select(inside, terms.slope, Vec{});
    losses += terms.value;
    slopes += sigmoid;
    highest = Select(cos > highest, cos, highest);
    Store(row + i, sigmoid * Splat(slope));
  }
  const float by_bias = -p.negative_weight * Sum(slopes);
  totals->loss += p.negative_weight * Sum(losses);
  for (int lane = 0; lane < kWidth; ++lane) {
    totals->max_negative = std::max(totals->max_negative, highest[lane]);
    totals->above += above[lane];
  }
  if (p.bias_of_class) p.bias_bar[index] = p.factor * by_bias;
  totals->bias_bar += by_bias;
}

// The classes begin .. begin + count - 1, count <= kBlock; `own` is dL/df so far, [padded, D].
void Block(const Problem& p, ptrdiff_t begin, ptrdiff_t count, float* own, float* scratch,
           Totals* totals) {
  const Layout& l = p.layout;
  const ptrdiff_t dimension = l.dimension, row = l.row();
  float* tile = scratch;                 // [count, row]
  float* panel = tile + kBlock * row;    // [count, kPanel]: a panel of the prototypes
  float* inverse = panel + kBlock * kPanel;
  float* unfloored = inverse + kBlock;
  const float* weight = p.weight + begin * dimension;
  float* weight_bar = p.weight_bar ? p.weight_bar + begin * dimension : nullptr;

  for (ptrdiff_t start = 0; start < l.padded; start += kPanel) {
    const int vectors = VectorsFrom(start, l.padded);
    Products(weight, dimension, count, p.transposed + start * dimension,
             {dimension, 1, vectors * kWidth}, vectors, tile + start, row, true);
  }
  for (ptrdiff_t j = 0; j < count; ++j) {
    const float length = std::sqrt(Dot(weight + j * dimension, weight + j * dimension, dimension));
    const float norm = std::min(length, kNormCeiling);
    inverse[j] = 1 / std::max(norm, kNormFloor);
    unfloored[j] = norm > kNormFloor;
  }
  for (ptrdiff_t i = 0; i < l.batch; ++i) {
    const ptrdiff_t j = p.position[i] - begin;
    if (j >= 0 && j < count) tile[j * row + i] = 2 * kFill / inverse[j];
  }
  for (ptrdiff_t j = 0; j < count; ++j) {
    if (p.valid[begin + j]) {
      Element(p, begin + j, inverse[j], tile + j * row, totals);
    } else {
      std::memset(tile + j * row, 0, sizeof(float) * l.padded);
      if (p.bias_of_class) p.bias_bar[begin + j] = 0;
    }
  }
  for (ptrdiff_t start = 0; start < dimension; start += kPanel) {
    const int vectors = VectorsFrom(start, dimension);
    if (weight_bar)
      Products(tile, row, count, p.panels + start * l.padded, {l.padded, 1, vectors * kWidth},
               vectors, weight_bar + start, dimension, true);
    for (ptrdiff_t j = 0; j < count; ++j)
      for (int v = 0; v < vectors; ++v)
        Store(panel + (j * vectors + v) * kWidth, Load(weight + j * dimension + start + v * kWidth));
    Products(tile, 1, l.padded, panel, {count, row, vectors * kWidth}, vectors, own + start,
             dimension, false);
  }
  for (ptrdiff_t j = 0; weight_bar && j < count; ++j) {
    const float* w = weight + j * dimension;
    float* w_bar = weight_bar + j * dimension;
    const float along = Dot(w_bar, w, dimension) * inverse[j] * inverse[j] * unfloored[j];
    for (ptrdiff_t d = 0; d < dimension; d += kWidth)
      Store(w_bar + d, Load(w_bar + d) - Splat(along) * Load(w + d));
  }
}

// The directions twice, so that both products read panels in a row: [D, panel] and [B, panel].
void Pack(const Problem& p, Range samples) {
  const Layout& l = p.layout;
  for (ptrdiff_t i = samples.begin; i < samples.end; ++i) {
    const ptrdiff_t start = i / kPanel * kPanel, width = VectorsFrom(start, l.padded) * kWidth;
    for (ptrdiff_t d = 0; d < l.dimension; ++d) {
      const float value = i < l.batch ? p.directions[i * l.dimension + d] : 0.0f;
      p.transposed[start * l.dimension + d * width + i - start] = value;
      if (!p.panels) continue;
      const ptrdiff_t first = d / kPanel * kPanel;
      const ptrdiff_t columns = VectorsFrom(first, l.dimension) * kWidth;
      p.panels[first * l.padded + i * columns + d - first] = value;
    }
  }
}

ffi::Error Head(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> directions,
                ffi::Buffer<ffi::S32> position, ffi::Buffer<ffi::F32> weight,
                ffi::Buffer<ffi::F32> bias, ffi::Buffer<ffi::PRED> valid, float scale,
                float negative_weight, float factor, int32_t tasks,
                ffi::ResultBuffer<ffi::F32> loss, ffi::ResultBuffer<ffi::F32> directions_bar,
                ffi::ResultBuffer<ffi::F32> weight_bar, ffi::ResultBuffer<ffi::F32> bias_bar,
                ffi::ResultBuffer<ffi::F32> max_negative, ffi::ResultBuffer<ffi::F32> above,
                ffi::ResultBuffer<ffi::F32> scratch) {
  const ptrdiff_t dimension = directions.dimensions()[1];
  const Layout layout = LayoutOf(directions.dimensions()[0], dimension);
  const bool frozen = weight_bar->element_count() == 0;
  if (dimension % kWidth ||
      static_cast<ptrdiff_t>(scratch->element_count()) < layout.whole(tasks, frozen))
    return ffi::Error::InvalidArgument("the head's dimension or scratch memory is not as agreed");
  float* memory = scratch->typed_data();
  Problem p{layout, weight.dimensions()[0], directions.typed_data(), weight.typed_data(),
            bias.typed_data(), position.typed_data(), valid.typed_data(),
            bias.dimensions().size() == 1, scale, negative_weight, factor,
            frozen ? nullptr : weight_bar->typed_data(), bias_bar->typed_data(), memory,
            frozen ? nullptr : memory + layout.directions()};
  float* of_tasks = memory + layout.whole(0, frozen);
  auto own = [&](int task) { return of_tasks + task * layout.of_task(); };

  RunTasks(pool, tasks, [&](int task) { Pack(p, Part(task, tasks, layout.padded)); });
  RunTasks(pool, tasks, [&](int task) {
    float* sums = own(task);
    std::memset(sums, 0, sizeof(float) * layout.directions());
    Totals totals = kNothing;
    const Range classes = Part(task, tasks, p.classes, kBlock);
    for (ptrdiff_t begin = classes.begin; begin < classes.end; begin += kBlock)
      Block(p, begin, std::min<ptrdiff_t>(kBlock, classes.end - begin), sums,
            sums + layout.directions(), &totals);
    std::memcpy(sums + layout.of_task() - kTotals, &totals, sizeof(totals));
  });
  RunTasks(pool, tasks, [&](int task) {
    const Range samples = Part(task, tasks, layout.batch);
    for (ptrdiff_t i = samples.begin * dimension; i < samples.end * dimension; i += kWidth) {
      Vec sum = Load(own(0) + i);
      for (int other = 1; other < tasks; ++other) sum += Load(own(other) + i);
      Store(directions_bar->typed_data() + i, sum);
    }
  });
  Totals all = kNothing;
  for (int task = 0; task < tasks; ++task) {
    Totals totals;
    std::memcpy(&totals, own(task) + layout.of_task() - kTotals, sizeof(totals));
    all.loss += totals.loss;
    all.bias_bar += totals.bias_bar;
    all.max_negative = std::max(all.max_negative, totals.max_negative);
    all.above += totals.above;
  }
  *loss->typed_data() = all.loss;
  *max_negative->typed_data() = all.max_negative;
  *above->typed_data() = all.above;
  if (!p.bias_of_class) *p.bias_bar = factor * all.bias_bar;
  return ffi::Error::Success();
}

}  // namespace

extern "C" int64_t UnifaceHeadScratch(int64_t batch, int64_t dimension, int64_t tasks,
                                      int64_t frozen) {
  return LayoutOf(batch, dimension).whole(tasks, frozen);
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(UnifaceCrossEntropyHead, Head,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::PRED>>()
                                  .Attr<float>("scale")
                                  .Attr<float>("negative_weight")
                                  .Attr<float>("factor")
                                  .Attr<int32_t>("tasks")
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());

}  // namespace uniface
