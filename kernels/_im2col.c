// Columns of one image for a convolution as a product: X[k, oh * ow] out of an image [c, h, w], k = c * kh * kw.
//
//   image    float [c, h, w]            row-major
//   columns  float [c, kh, kw, oh, ow]  row-major, every entry written, 0 where the kernel hangs over the edge
//
// Demands:  stride >= 1, 0 <= padding; oh = (h + 2 padding - kh) / stride + 1, ow alike.
// Moves:    4 * c * h * w bytes read at least, 4 * k * oh * ow written.
// Source:   own.

#include <stdint.h>
#include <string.h>

// One row of the output plane for one kernel column s: out[ox] = row[ox * stride + s - padding], 0 outside 0..w.
static void shifted_row(float* out, const float* row, int64_t ow, int64_t w, int64_t stride, int64_t shift)
{
    int64_t first = shift < 0 ? (-shift + stride - 1) / stride : 0;
    int64_t end = w > shift ? (w - shift + stride - 1) / stride : 0;
    if (end > ow) end = ow;
    if (first > end) first = end;
    memset(out, 0, sizeof(float) * (size_t)first);
    memset(out + end, 0, sizeof(float) * (size_t)(ow - end));
    if (stride == 1) memcpy(out + first, row + first + shift, sizeof(float) * (size_t)(end - first));
    else for (int64_t ox = first; ox < end; ++ox) out[ox] = row[ox * stride + shift];
}

void im2col_f32(int64_t c, int64_t h, int64_t w, int64_t kh, int64_t kw, int64_t stride, int64_t padding,
                int64_t oh, int64_t ow, const float* image, float* columns)
{
    for (int64_t j = 0; j < c * kh * kw; ++j) {
        int64_t s = j % kw, r = j / kw % kh;
        const float* plane = image + j / (kw * kh) * h * w;
        for (int64_t oy = 0; oy < oh; ++oy, columns += ow) {
            int64_t iy = oy * stride + r - padding;
            if (iy < 0 || iy >= h) memset(columns, 0, sizeof(float) * (size_t)ow);
            else shifted_row(columns, plane + iy * w, ow, w, stride, s - padding);
        }
    }
}
