// The rows of a gallery that may be among the nearest of each query, by 8-bit codes whose error is
// bounded: native/nearest.py says how rows are coded, and has a twin in NumPy that is the reference.
// A block is 64 rows side by side, four dimensions of each together, which is what one instruction
// multiplies: codes [blocks, dimensions / 4, 64, 4]. A block stays in a core's first-level cache
// while all queries pass over it, so that the codes come from memory once.

#include <cstdint>
#include <cstring>

#if !defined(UNIFACE_PORTABLE) && (defined(__AVX512VNNI__) || defined(__AVX2__))
#include <immintrin.h>
#endif

namespace {

constexpr int kRows = 64;    // of a block
constexpr int kQueries = 6;  // that pass over a block at a time: 24 sums and 4 codes in registers

}  // namespace

extern "C" {

// Arrays of C-contiguous memory; native/nearest.py has the same in the same order.
struct UnifaceNearest {
  const uint8_t* codes;  // a row's code plus 128
  const float* scales;   // [rows], what a step of a row's code is worth
  const float* errors;   // [rows], of a row's code; nan leaves the row out
  int64_t groups;        // dimensions / 4
  const int8_t* queries;  // [queries, dimensions]; there are kQueries or a multiple
  const int32_t* sums;    // [queries], 128 times the sum of a query's code
  const float* query_scales;
  const float* by_error;  // [queries]; the bound of a cosine is error * by_error + beyond
  const float* beyond;
  int64_t query_count;
  int64_t k;
  float* best;  // [queries, k], falling: the greatest lower bounds of cosines so far
  int32_t* found_queries;
  int64_t* found_rows;
  float* found_bounds;  // the upper ones
  int64_t capacity;     // of each of the three
  int64_t found;
};

}  // extern "C"

namespace {

// sums[q][row] = codes of the row times the code of query q.
#if !defined(UNIFACE_PORTABLE) && defined(__AVX512VNNI__)

void Dots(const uint8_t* block, int64_t groups, const int8_t* queries,
          int32_t sums[kQueries][kRows]) {
  __m512i total[kQueries][4];
  for (auto& of_query : total)
    for (__m512i& sum : of_query) sum = _mm512_setzero_si512();
  for (int64_t g = 0; g < groups; ++g) {
    __m512i code[4];
    for (int r = 0; r < 4; ++r) code[r] = _mm512_loadu_si512(block + g * 256 + r * 64);
#pragma GCC unroll 6
    for (int q = 0; q < kQueries; ++q) {
      int32_t four;
      std::memcpy(&four, queries + (q * groups + g) * 4, 4);
      const __m512i query = _mm512_set1_epi32(four);
      for (int r = 0; r < 4; ++r) total[q][r] = _mm512_dpbusd_epi32(total[q][r], code[r], query);
    }
  }
  for (int q = 0; q < kQueries; ++q)
    for (int r = 0; r < 4; ++r) _mm512_storeu_si512(sums[q] + r * 16, total[q][r]);
}

#elif !defined(UNIFACE_PORTABLE) && defined(__AVX2__)

// Products of 16 bits: those of 8 that AVX2 has would be cut off at 32767.
void Dots(const uint8_t* block, int64_t groups, const int8_t* queries,
          int32_t sums[kQueries][kRows]) {
  for (int pair = 0; pair < kQueries; pair += 2)
    for (int start = 0; start < kRows; start += 16) {
      __m256i total[2][4];
      for (auto& of_query : total)
        for (__m256i& sum : of_query) sum = _mm256_setzero_si256();
      for (int64_t g = 0; g < groups; ++g) {
        __m256i code[4];
        for (int r = 0; r < 4; ++r)
          code[r] = _mm256_cvtepu8_epi16(_mm_loadu_si128(
              reinterpret_cast<const __m128i*>(block + g * 256 + (start + 4 * r) * 4)));
        for (int q = 0; q < 2; ++q) {
          int32_t four;
          std::memcpy(&four, queries + ((pair + q) * groups + g) * 4, 4);
          const __m256i query = _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(four)));
          for (int r = 0; r < 4; ++r)
            total[q][r] = _mm256_add_epi32(total[q][r], _mm256_madd_epi16(code[r], query));
        }
      }
      for (int q = 0; q < 2; ++q)
        for (int r = 0; r < 4; ++r) {
          int32_t halves[8];
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(halves), total[q][r]);
          for (int i = 0; i < 4; ++i)
            sums[pair + q][start + 4 * r + i] = halves[2 * i] + halves[2 * i + 1];
        }
    }
}

#else

void Dots(const uint8_t* block, int64_t groups, const int8_t* queries,
          int32_t sums[kQueries][kRows]) {
  for (int q = 0; q < kQueries; ++q) {
    int32_t total[kRows] = {};
    for (int64_t g = 0; g < groups; ++g) {
      const int8_t* query = queries + (q * groups + g) * 4;
      const uint8_t* code = block + g * 4 * kRows;
      for (int row = 0; row < kRows; ++row)
        for (int i = 0; i < 4; ++i)
          total[row] += static_cast<int32_t>(code[row * 4 + i]) * query[i];
    }
    std::memcpy(sums[q], total, sizeof(total));
  }
}

#endif

// Puts a lower bound into its place among the k greatest.
void Insert(float* best, int64_t k, float lower) {
  int64_t place = k - 1;
  for (; place > 0 && best[place - 1] < lower; --place) best[place] = best[place - 1];
  best[place] = lower;
}

// Notes the rows of a block whose upper bound reaches the k-th greatest lower one.
void Note(UnifaceNearest* n, int64_t q, int64_t first, const int32_t dots[kRows]) {
  const float *scales = n->scales + first, *errors = n->errors + first;
  const float scale = n->query_scales[q], by_error = n->by_error[q], beyond = n->beyond[q];
  const int32_t sum = n->sums[q];
  float* best = n->best + q * n->k;
  float cosines[kRows], bounds[kRows];
  const float least = best[n->k - 1];
  int reach = 0;
  for (int row = 0; row < kRows; ++row) {
    cosines[row] = static_cast<float>(dots[row] - sum) * (scales[row] * scale);
    bounds[row] = errors[row] * by_error + beyond;
    reach |= cosines[row] + bounds[row] >= least;
  }
  if (!reach) return;
  for (int row = 0; row < kRows; ++row) {
    const float upper = cosines[row] + bounds[row], lower = cosines[row] - bounds[row];
    if (!(upper >= best[n->k - 1])) continue;
    n->found_queries[n->found] = static_cast<int32_t>(q);
    n->found_rows[n->found] = first + row;
    n->found_bounds[n->found++] = upper;
    if (lower > best[n->k - 1]) Insert(best, n->k, lower);
  }
}

}  // namespace

extern "C" {

// Goes over blocks `begin` to `end` - 1, as far as what may be found has room; returns the first
// block that is left.
int64_t UnifaceNearestOfCodes(UnifaceNearest* n, int64_t begin, int64_t end) {
  const int64_t bytes = n->groups * 4 * kRows;
  for (int64_t block = begin; block < end; ++block) {
    if (n->found + n->query_count * kRows > n->capacity) return block;
    for (int64_t q = 0; q < n->query_count; q += kQueries) {
      alignas(64) int32_t dots[kQueries][kRows];
      Dots(n->codes + block * bytes, n->groups, n->queries + q * n->groups * 4, dots);
      for (int i = 0; i < kQueries; ++i) Note(n, q + i, block * kRows, dots[i]);
    }
  }
  return end;
}

}  // extern "C"
