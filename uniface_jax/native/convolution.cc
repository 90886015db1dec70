// Convolutions of maps [B, H, W, C] with kernels [h, w, C, O], as models/convolution.py's, and their
// gradients, which are the reference for every number here. No patches are copied: the tiles of
// outer_products.h read the maps where they lie, at the borders from a row of zeros.

#include <cstdint>
#include <cstring>

#include "maps.h"
#include "outer_products.h"
#include "tasks.h"
#include "xla/ffi/api/ffi.h"

namespace uniface {
namespace {

namespace ffi = xla::ffi;

// kernel [taps, rows, columns] by panels of columns: [panel][taps, rows, kPanel].
void Pack(const float* kernel, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t start, float* panels) {
  const ptrdiff_t width = VectorsFrom(start, columns) * kWidth;
  float* to = panels + start * rows;
  for (ptrdiff_t row = 0; row < rows; ++row, to += width)
    std::memcpy(to, kernel + row * columns + start, sizeof(float) * width);
}

// One row of outputs, `start` of its channels: rows of x are read at the taps, zeros beyond.
void OutputRow(const Problem& p, const float* x, const float* panel, const float* zeros,
               ptrdiff_t image, ptrdiff_t h, ptrdiff_t start, float* y) {
  const Map &in = p.in, &out = p.out;
  const int vectors = VectorsFrom(start, out.channels);
  const ptrdiff_t tap_size = in.channels * vectors * kWidth;
  const ptrdiff_t tiles = (out.width + kRows - 1) / kRows;
  float* row = y + (image * out.height + h) * out.width * out.channels + start;
  const float* from[kRows];
  for (ptrdiff_t tile = 0; tile < tiles; ++tile) {
    const Range w = Part(tile, tiles, out.width);
    const int taken = static_cast<int>(w.end - w.begin);
    float* c = row + w.begin * out.channels;
    const bool inside = w.begin * p.stride >= p.padding &&
                        (w.end - 1) * p.stride - p.padding + p.taps <= in.width;
    bool fresh = true;
    for (ptrdiff_t i = 0; i < p.taps; ++i) {
      const ptrdiff_t from_h = h * p.stride + i - p.padding;
      if (from_h < 0 || from_h >= in.height) continue;
      const float* of_row = x + (image * in.height + from_h) * in.width * in.channels;
      // Inside, a kernel row's taps lie one after the other in the map as in the panel.
      for (ptrdiff_t j = 0; j < (inside ? 1 : p.taps); ++j) {
        for (int r = 0; r < taken; ++r) {
          const ptrdiff_t from_w = (w.begin + r) * p.stride + j - p.padding;
          from[r] = from_w < 0 || from_w >= in.width ? zeros : of_row + from_w * in.channels;
        }
        const ptrdiff_t length = in.channels * (inside ? p.taps : 1);
        Outer(taken, vectors, from, panel + (i * p.taps + j) * tap_size,
              {length, 1, vectors * kWidth}, c, out.channels, fresh);
        fresh = false;
      }
    }
    if (fresh)
      for (int r = 0; r < taken; ++r)
        std::memset(c + r * out.channels, 0, sizeof(float) * vectors * kWidth);
  }
}

// The gradient by x, one row of it, where the strides leave every stride-th tap for a position.
// The kernel comes transposed, [h, w, O, C].
void InputRow(const Problem& p, const float* y_bar, const float* panel, const float* zeros,
              ptrdiff_t image, ptrdiff_t h, ptrdiff_t start, float* x_bar) {
  const Map &in = p.in, &out = p.out;
  const int vectors = VectorsFrom(start, in.channels);
  const ptrdiff_t tap_size = out.channels * vectors * kWidth;
  float* row = x_bar + (image * in.height + h) * in.width * in.channels + start;
  const float* from[kRows];
  for (ptrdiff_t residue = 0; residue < p.stride; ++residue) {
    const ptrdiff_t positions = (in.width - residue + p.stride - 1) / p.stride;
    const ptrdiff_t tiles = (positions + kRows - 1) / kRows;
    for (ptrdiff_t tile = 0; tile < tiles; ++tile) {
      const Range part = Part(tile, tiles, positions);
      const int taken = static_cast<int>(part.end - part.begin);
      float* c = row + (residue + part.begin * p.stride) * in.channels;
      bool fresh = true;
      for (ptrdiff_t i = 0; i < p.taps; ++i) {
        const ptrdiff_t at_h = h + p.padding - i;
        if (at_h < 0 || at_h % p.stride || at_h / p.stride >= out.height) continue;
        const float* of_row = y_bar + (image * out.height + at_h / p.stride) * out.width * out.channels;
        for (ptrdiff_t j = 0; j < p.taps; ++j) {
          if ((residue + p.padding - j) % p.stride) continue;
          for (int r = 0; r < taken; ++r) {
            const ptrdiff_t at_w = residue + (part.begin + r) * p.stride + p.padding - j;
            const bool there = at_w >= 0 && at_w / p.stride < out.width;
            from[r] = there ? of_row + at_w / p.stride * out.channels : zeros;
          }
          Outer(taken, vectors, from, panel + (i * p.taps + j) * tap_size,
                {out.channels, 1, vectors * kWidth}, c, p.stride * in.channels, fresh);
          fresh = false;
        }
      }
      if (fresh)
        for (int r = 0; r < taken; ++r)
          std::memset(c + r * p.stride * in.channels, 0, sizeof(float) * vectors * kWidth);
    }
  }
}

// A map `to` of `from` by `row`, OutputRow or InputRow, a few rows a task.
template <typename Row>
ffi::Error ByRows(const ffi::ThreadPool& pool, const Problem& p, const Map& from, const Map& to,
                  const Floats& map, const Floats& kernel, Result& result, Result& scratch,
                  const Row& row) {
  const ptrdiff_t rows = p.taps * p.taps * from.channels, columns = to.channels;
  if (columns % kWidth ||
      static_cast<ptrdiff_t>(scratch->element_count()) < rows * columns + from.channels)
    return ffi::Error::InvalidArgument("the convolution's channels or scratch are not as agreed");
  float* panels = scratch->typed_data();
  float* zeros = panels + rows * columns;
  std::memset(zeros, 0, sizeof(float) * from.channels);
  const int count = static_cast<int>((columns + kPanel - 1) / kPanel);
  RunTasks(pool, count, [&](int task) {
    Pack(kernel.typed_data(), rows, columns, task * kPanel, panels);
  });
  const ptrdiff_t lines = to.batch * to.height;
  const int tasks = static_cast<int>((lines + kRowsInWork - 1) / kRowsInWork);
  RunTasks(pool, tasks, [&](int task) {
    const Range range = Part(task, tasks, lines);
    for (ptrdiff_t start = 0; start < columns; start += kPanel)
      for (ptrdiff_t line = range.begin; line < range.end; ++line)
        row(p, map.typed_data(), panels + start * rows, zeros, line / to.height,
            line % to.height, start, result->typed_data());
  });
  return ffi::Error::Success();
}

ffi::Error Forward(ffi::ThreadPool pool, Floats x, Floats kernel, int32_t stride, int32_t padding,
                   Result y, Result scratch) {
  const Problem p{MapOf(x.dimensions()), MapOf(y->dimensions()), kernel.dimensions()[0], stride,
                  padding};
  return ByRows(pool, p, p.in, p.out, x, kernel, y, scratch, OutputRow);
}

ffi::Error InputGradient(ffi::ThreadPool pool, Floats y_bar, Floats transposed, int32_t stride,
                         int32_t padding, Result x_bar, Result scratch) {
  const Problem p{MapOf(x_bar->dimensions()), MapOf(y_bar.dimensions()),
                  transposed.dimensions()[0], stride, padding};
  return ByRows(pool, p, p.out, p.in, y_bar, transposed, x_bar, scratch, InputRow);
}

// Adds to one tap's part of the kernel's gradient, [C, O] of which columns start .. are wanted, what
// the rows `h` of an image's outputs give.
void AddRows(const Problem& p, const float* x, const float* y_bar, ptrdiff_t image, Range h,
             ptrdiff_t i, ptrdiff_t j, ptrdiff_t start, float* sums) {
  const Map &in = p.in, &out = p.out;
  h = Reached(p, i, in.height, h);
  const Range w = Reached(p, j, in.width, {0, out.width});
  if (h.begin >= h.end || w.begin >= w.end) return;
  const ptrdiff_t from_h = h.begin * p.stride + i - p.padding;
  const ptrdiff_t from_w = w.begin * p.stride + j - p.padding;
  const float* a = x + ((image * in.height + from_h) * in.width + from_w) * in.channels;
  const float* b = y_bar + ((image * out.height + h.begin) * out.width + w.begin) * out.channels;
  const ptrdiff_t length = w.end - w.begin;
  const Terms terms{length, p.stride * in.channels, out.channels, h.end - h.begin,
                    (in.width - length) * p.stride * in.channels,
                    (out.width - length) * out.channels};
  Products(a, 1, in.channels, b + start, terms, VectorsFrom(start, out.channels), sums + start,
           out.channels, false);
}

// Either every part of the images has sums of its own in scratch memory, [parts, kernel], or, where
// `parts` is 0, every tap and panel of outputs is a task of its own.
ffi::Error KernelGradient(ffi::ThreadPool pool, Floats x, Floats y_bar, int32_t stride,
                          int32_t padding, int32_t parts, Result kernel_bar, Result scratch) {
  const Problem p{MapOf(x.dimensions()), MapOf(y_bar.dimensions()), kernel_bar->dimensions()[0],
                  stride, padding};
  const ptrdiff_t outputs = p.out.channels, tap_size = p.in.channels * outputs;
  const ptrdiff_t size = p.taps * p.taps * tap_size;
  if (outputs % kWidth || static_cast<ptrdiff_t>(scratch->element_count()) < parts * size)
    return ffi::Error::InvalidArgument("the convolution's channels or scratch are not as agreed");
  const float *from = x.typed_data(), *by = y_bar.typed_data();
  float* result = kernel_bar->typed_data();
  if (!parts) {
    const ptrdiff_t panels = (outputs + kPanel - 1) / kPanel;
    std::memset(result, 0, sizeof(float) * size);
    RunTasks(pool, static_cast<int>(p.taps * p.taps * panels), [&](int task) {
      const ptrdiff_t tap = task / panels, start = task % panels * kPanel;
      for (ptrdiff_t image = 0; image < p.in.batch; ++image)
        AddRows(p, from, by, image, {0, p.out.height}, tap / p.taps, tap % p.taps, start,
                result + tap * tap_size);
    });
    return ffi::Error::Success();
  }
  float* sums = scratch->typed_data();
  RunTasks(pool, parts, [&](int task) {
    float* own = sums + task * size;
    std::memset(own, 0, sizeof(float) * size);
    const Range lines = Part(task, parts, p.out.batch * p.out.height);
    for (ptrdiff_t line = lines.begin; line < lines.end;) {
      const ptrdiff_t image = line / p.out.height, h = line % p.out.height;
      const ptrdiff_t taken = std::min({kRowsInWork, p.out.height - h, lines.end - line});
      for (ptrdiff_t start = 0; start < outputs; start += kPanel)
        for (ptrdiff_t tap = 0; tap < p.taps * p.taps; ++tap)
          AddRows(p, from, by, image, {h, h + taken}, tap / p.taps, tap % p.taps, start,
                  own + tap * tap_size);
      line += taken;
    }
  });
  SumParts(pool, parts, sums, size, result);
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(UnifaceConvolution, Forward,
                              ConvolutionBinding().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(UnifaceInputGradient, InputGradient,
                              ConvolutionBinding().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    UnifaceKernelGradient, KernelGradient,
    ConvolutionBinding().Attr<int32_t>("parts").Ret<Floats>().Ret<Floats>());

}  // namespace uniface
