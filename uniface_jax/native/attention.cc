// Self-attention, softmax(q k' / sqrt(d)) v, and its gradient by q, k and v at once, as models/vit.py's
// attend, which is the reference for every number here. Queries, keys and values lie beside each other
// as a linear layer leaves them, qkv [B, N, 3, heads, d]. A task is one head of an image: its weights
// [N, N] stay in a core's cache, and the gradient takes them anew.

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

struct Shape {
  ptrdiff_t batch, tokens, heads, size;
  float scale;
  // The odd vector keeps columns from falling on one set of the cache.
  ptrdiff_t padded() const { return (tokens + kWidth - 1) / kWidth * kWidth; }
  ptrdiff_t step() const { return padded() + kWidth; }     // of a row of weights
  ptrdiff_t row() const { return 3 * heads * size; }       // of a token in qkv
  ptrdiff_t mixed_row() const { return heads * size; }     // of a token in the result
};

// A matrix: rows, `step` apart.
struct Rows {
  const float* at;
  ptrdiff_t step;
};

// Copies tokens' rows of `size` side by side: read at strides of a power of two they would fall on
// a few sets of the cache.
void Gather(const Shape& s, Rows from, float* to) {
  for (ptrdiff_t n = 0; n < s.tokens; ++n)
    std::memcpy(to + n * s.size, from.at + n * from.step, sizeof(float) * s.size);
}

// The same transposed, [size, padded], with zeros behind the tokens.
void GatherTransposed(const Shape& s, Rows from, float* to) {
  const ptrdiff_t padded = s.padded();
  for (ptrdiff_t j = 0; j < s.size; ++j)
    std::memset(to + j * padded + s.tokens, 0, sizeof(float) * (padded - s.tokens));
  for (ptrdiff_t n = 0; n < s.tokens; ++n)
    for (ptrdiff_t j = 0; j < s.size; ++j) to[j * padded + n] = from.at[n * from.step + j];
}

// c [rows, columns] = sum over `terms` of a[row * a_row + t * a_step] b[t, column]; columns and b's
// step are whole vectors.
void Multiply(Rows a, ptrdiff_t a_step, ptrdiff_t rows, ptrdiff_t terms, Rows b, ptrdiff_t columns,
              float* c, ptrdiff_t c_row) {
  for (ptrdiff_t start = 0; start < columns; start += kPanel)
    Products(a.at, a.step, rows, b.at + start, {terms, a_step, b.step},
             VectorsFrom(start, columns), c + start, c_row, true);
}

// weights [tokens, step]: the softmax of the logits there; behind the tokens, what is as good as zero.
// A row with a logit that is nan or infinite is nan, which the comparisons below would hide.
void Softmax(const Shape& s, float* weights) {
  const ptrdiff_t padded = s.padded();
  const Vec least = Splat(-3e38f), most = Splat(87.0f), scale = Splat(s.scale);
  for (ptrdiff_t n = 0; n < s.tokens; ++n) {
    float* row = weights + n * s.step();
    for (ptrdiff_t k = s.tokens; k < padded; ++k) row[k] = least[0];
    Vec highest = least, zeros = {};
    for (ptrdiff_t k = 0; k < padded; k += kWidth) {
      const Vec logits = Load(row + k);
      highest = Select(logits > highest, logits, highest);
      zeros += logits * Vec{};
    }
    float of_row = highest[0];
    for (int lane = 1; lane < kWidth; ++lane) of_row = std::max(of_row, highest[lane]);
    Vec sums = {};
    for (ptrdiff_t k = 0; k < padded; k += kWidth) {
      const Vec below = (Splat(of_row) - Load(row + k)) * scale;
      const Vec e = ExpOfNegative(Select(below < most, below, most));
      sums += e;
      Store(row + k, e);
    }
    const Vec factor = Splat(1.0f / Sum(sums) + Sum(zeros));
    for (ptrdiff_t k = 0; k < padded; k += kWidth) Store(row + k, Load(row + k) * factor);
  }
}

// In place of the gradient by the weights, that by the products q k'.
void SoftmaxGradient(const Shape& s, const float* weights, float* gradient) {
  const ptrdiff_t padded = s.padded();
  const Vec scale = Splat(s.scale);
  for (ptrdiff_t n = 0; n < s.tokens; ++n) {
    const float* w = weights + n * s.step();
    float* g = gradient + n * s.step();
    Vec sums = {};
    for (ptrdiff_t k = 0; k < padded; k += kWidth) sums += Load(w + k) * Load(g + k);
    const Vec mean = Splat(Sum(sums));
    for (ptrdiff_t k = 0; k < padded; k += kWidth)
      Store(g + k, Load(w + k) * (Load(g + k) - mean) * scale);
  }
}

// A thread's memory, from call to call.
float* Memory(ptrdiff_t floats) {
  static thread_local std::vector<float> memory;
  if (static_cast<ptrdiff_t>(memory.size()) < floats) memory.resize(floats);
  return memory.data();
}

ffi::Error Checked(const Shape& s, const Floats& qkv, ffi::Span<const int64_t> mixed) {
  const auto d = qkv.dimensions();
  const bool agreed = d.size() == 5 && d[2] == 3 && s.size % kWidth == 0 && mixed.size() == 4 &&
                      mixed[0] == d[0] && mixed[1] == d[1] && mixed[2] == d[3] && mixed[3] == d[4];
  if (agreed) return ffi::Error::Success();
  return ffi::Error::InvalidArgument("the attention's shapes are not as agreed");
}

Shape ShapeOf(ffi::Span<const int64_t> d) {
  return {d[0], d[1], d[3], d[4], 1.0f / std::sqrt(static_cast<float>(d[4]))};
}

ffi::Error Forward(ffi::ThreadPool pool, Floats qkv, Result mixed) {
  const Shape s = ShapeOf(qkv.dimensions());
  if (ffi::Error error = Checked(s, qkv, mixed->dimensions()); error.failure()) return error;
  RunTasks(pool, static_cast<int>(s.batch * s.heads), [&](int task) {
    const ptrdiff_t image = task / s.heads, head = task % s.heads, packed = s.size * s.padded();
    float* keys = Memory(2 * packed + s.tokens * s.step());
    float *values = keys + packed, *weights = values + packed;
    const float* query = qkv.typed_data() + image * s.tokens * s.row() + head * s.size;
    GatherTransposed(s, {query + s.mixed_row(), s.row()}, keys);
    Gather(s, {query + 2 * s.mixed_row(), s.row()}, values);
    Multiply({query, s.row()}, 1, s.tokens, s.size, {keys, s.padded()}, s.padded(), weights,
             s.step());
    Softmax(s, weights);
    Multiply({weights, s.step()}, 1, s.tokens, s.tokens, {values, s.size}, s.size,
             mixed->typed_data() + image * s.tokens * s.mixed_row() + head * s.size,
             s.mixed_row());
  });
  return ffi::Error::Success();
}

ffi::Error Gradient(ffi::ThreadPool pool, Floats qkv, Floats mixed_bar, Result qkv_bar) {
  const Shape s = ShapeOf(qkv.dimensions());
  if (ffi::Error error = Checked(s, qkv, mixed_bar.dimensions()); error.failure()) return error;
  RunTasks(pool, static_cast<int>(s.batch * s.heads), [&](int task) {
    const ptrdiff_t image = task / s.heads, head = task % s.heads, packed = s.size * s.padded();
    float* keys = Memory(5 * packed + 2 * s.tokens * s.step());
    float *values = keys + packed, *query = values + packed, *key = query + packed;
    float *by_mixed = key + packed, *weights = by_mixed + packed;
    float* by_logits = weights + s.tokens * s.step();
    const float* from = qkv.typed_data() + image * s.tokens * s.row() + head * s.size;
    float* to = qkv_bar->typed_data() + image * s.tokens * s.row() + head * s.size;
    GatherTransposed(s, {from + s.mixed_row(), s.row()}, keys);
    GatherTransposed(s, {from + 2 * s.mixed_row(), s.row()}, values);
    Gather(s, {from, s.row()}, query);
    Gather(s, {from + s.mixed_row(), s.row()}, key);
    Gather(s, {mixed_bar.typed_data() + image * s.tokens * s.mixed_row() + head * s.size,
               s.mixed_row()}, by_mixed);
    Multiply({query, s.size}, 1, s.tokens, s.size, {keys, s.padded()}, s.padded(), weights,
             s.step());
    Softmax(s, weights);
    Multiply({by_mixed, s.size}, 1, s.tokens, s.size, {values, s.padded()}, s.padded(), by_logits,
             s.step());
    SoftmaxGradient(s, weights, by_logits);
    Multiply({by_logits, s.step()}, 1, s.tokens, s.tokens, {key, s.size}, s.size, to, s.row());
    Multiply({by_logits, 1}, s.step(), s.tokens, s.tokens, {query, s.size}, s.size,
             to + s.mixed_row(), s.row());
    Multiply({weights, 1}, s.step(), s.tokens, s.tokens, {by_mixed, s.size}, s.size,
             to + 2 * s.mixed_row(), s.row());
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(UnifaceAttention, Forward,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    UnifaceAttentionGradient, Gradient,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Floats>().Arg<Floats>().Ret<Floats>());

}  // namespace uniface
