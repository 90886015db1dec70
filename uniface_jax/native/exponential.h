// The exponential of whole vectors.
#ifndef UNIFACE_EXPONENTIAL_H_
#define UNIFACE_EXPONENTIAL_H_

#include "outer_products.h"

namespace uniface {

inline Vec Select(IntVec mask, Vec yes, Vec no) { return mask ? yes : no; }

// exp(-x) for 0 <= x <= 87, to 2 ulp.
inline Vec ExpOfNegative(Vec x) {
  const Vec y = x * Splat(-1.44269504f);
  const Vec rounded = (y + Splat(12582912.0f)) - Splat(12582912.0f);
  const Vec f = (-x - rounded * Splat(0.693359375f)) + rounded * Splat(2.12194440e-4f);
  Vec p = Splat(1.9875691500e-4f);
  p = p * f + Splat(1.3981999507e-3f);
  p = p * f + Splat(8.3334519073e-3f);
  p = p * f + Splat(4.1665795894e-2f);
  p = p * f + Splat(1.6666665459e-1f);
  p = p * f + Splat(5.0000001201e-1f);
  p = p * f * f + f + Splat(1.0f);
  const IntVec power = (__builtin_convertvector(rounded, IntVec) + 127) << 23;
  return p * reinterpret_cast<const Vec&>(power);
}

}  // namespace uniface

#endif  // UNIFACE_EXPONENTIAL_H_
