// The sums along one axis of Winograd's F(N, 3): N outputs of a correlation with 3 taps from N + 2
// inputs, by N + 2 products. With d a tile of the inputs and g the kernel,
//     y = A' [(G g) * (B' d)]          dL/dg = G' [(B' d) * (A dL/dy)]
// and in two dimensions the same along either axis.
#ifndef UNIFACE_WINOGRAD_H_
#define UNIFACE_WINOGRAD_H_

#include "outer_products.h"

namespace uniface {

template <int N>
struct Winograd;

// The points 0, 1, -1 and infinity.
template <>
struct Winograd<2> {
  static void OfInput(const Vec* d, Vec* to) {
    to[0] = d[0] - d[2];
    to[1] = d[1] + d[2];
    to[2] = d[2] - d[1];
    to[3] = d[1] - d[3];
  }
  static void OfKernel(const Vec* g, Vec* to) {
    const Vec half = Splat(0.5f), ends = half * (g[0] + g[2]), middle = half * g[1];
    to[0] = g[0];
    to[1] = ends + middle;
    to[2] = ends - middle;
    to[3] = g[2];
  }
  static void ToOutput(const Vec* m, Vec* y) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] - m[3];
  }
  static void OfOutputGradient(const Vec* y, Vec* to) {
    to[0] = y[0];
    to[1] = y[0] + y[1];
    to[2] = y[0] - y[1];
    to[3] = -y[1];
  }
  static void ToKernelGradient(const Vec* s, Vec* g) {
    const Vec half = Splat(0.5f);
    g[0] = s[0] + half * (s[1] + s[2]);
    g[1] = half * (s[1] - s[2]);
    g[2] = half * (s[1] + s[2]) + s[3];
  }
};

// The points 0, p, -p, q, -q and infinity with p = 5/8, q = 3/2: rounding is least about there, see
// docs/performance.md, and p^2, q^2, their sum and their product are floats.
template <>
struct Winograd<4> {
  static constexpr float p = 0.625f, q = 1.5f, pp = p * p, qq = q * q;
  static constexpr float zero = 1 / (pp * qq), by_p = 1 / (2 * pp * (pp - qq)),
                         by_q = 1 / (2 * qq * (qq - pp));
  static void OfInput(const Vec* d, Vec* to) {
    const Vec even_p = d[4] - qq * d[2], odd_p = d[3] - qq * d[1];
    const Vec even_q = d[4] - pp * d[2], odd_q = d[3] - pp * d[1];
    to[0] = d[4] - (pp + qq) * d[2] + pp * qq * d[0];
    to[1] = even_p + p * odd_p;
    to[2] = even_p - p * odd_p;
    to[3] = even_q + q * odd_q;
    to[4] = even_q - q * odd_q;
    to[5] = d[5] - (pp + qq) * d[3] + pp * qq * d[1];
  }
  static void OfKernel(const Vec* g, Vec* to) {
    const Vec even_p = by_p * (g[0] + pp * g[2]), odd_p = by_p * p * g[1];
    const Vec even_q = by_q * (g[0] + qq * g[2]), odd_q = by_q * q * g[1];
    to[0] = zero * g[0];
    to[1] = even_p + odd_p;
    to[2] = even_p - odd_p;
    to[3] = even_q + odd_q;
    to[4] = even_q - odd_q;
    to[5] = g[2];
  }
  static void ToOutput(const Vec* m, Vec* y) {
    const Vec even_p = m[1] + m[2], odd_p = m[1] - m[2];
    const Vec even_q = m[3] + m[4], odd_q = m[3] - m[4];
    y[0] = m[0] + even_p + even_q;
    y[1] = p * odd_p + q * odd_q;
    y[2] = pp * even_p + qq * even_q;
    y[3] = p * pp * odd_p + q * qq * odd_q + m[5];
  }
  static void OfOutputGradient(const Vec* y, Vec* to) {
    const Vec even_p = y[0] + pp * y[2], odd_p = y[1] + pp * y[3];
    const Vec even_q = y[0] + qq * y[2], odd_q = y[1] + qq * y[3];
    to[0] = y[0];
    to[1] = even_p + p * odd_p;
    to[2] = even_p - p * odd_p;
    to[3] = even_q + q * odd_q;
    to[4] = even_q - q * odd_q;
    to[5] = y[3];
  }
  static void ToKernelGradient(const Vec* s, Vec* g) {
    const Vec even_p = by_p * (s[1] + s[2]), odd_p = by_p * (s[1] - s[2]);
    const Vec even_q = by_q * (s[3] + s[4]), odd_q = by_q * (s[3] - s[4]);
    g[0] = zero * s[0] + even_p + even_q;
    g[1] = p * odd_p + q * odd_q;
    g[2] = pp * even_p + qq * even_q + s[5];
  }
};

// One of Winograd's sums along rows and then along columns: of kFrom x kFrom vectors read(i, j), in
// order, to kTo x kTo, each given to write(i, j, vector).
template <auto kAlong, int kFrom, int kTo, class Read, class Write>
inline void AlongBothAxes(Read read, Write write) {
  Vec rows[kFrom][kTo];
#pragma GCC unroll 6
  for (int i = 0; i < kFrom; ++i) {
    Vec row[kFrom];
#pragma GCC unroll 6
    for (int j = 0; j < kFrom; ++j) row[j] = read(i, j);
    kAlong(row, rows[i]);
  }
#pragma GCC unroll 6
  for (int j = 0; j < kTo; ++j) {
    Vec column[kFrom], all[kTo];
#pragma GCC unroll 6
    for (int i = 0; i < kFrom; ++i) column[i] = rows[i][j];
    kAlong(column, all);
#pragma GCC unroll 6
    for (int i = 0; i < kTo; ++i) write(i, j, all[i]);
  }
}

// Floats from one of a panel's matrices [C, width] to the next: not a power of two, by which all
// would meet in the same lines of a cache.
inline ptrdiff_t PanelStep(ptrdiff_t channels, ptrdiff_t width) { return channels * width + kWidth; }

}  // namespace uniface

#endif  // UNIFACE_WINOGRAD_H_
