/* A libcusparse for machines without a GPU: the entry points that kernels/_cusparse.py calls, with the numbers of
 * cusparse.h and library_types.h, over memory of the CPU. Products are summed in double and rounded once.
 *
 * It is stricter than the real one. Every address must lie in memory that fake_know() was told of, with room for what
 * the descriptor says; leading dimensions must be exact; a workspace must be as large as was said. Wrong arguments are
 * status 3 and a sentence in fake_said(); a type that fake_refuse() named is status 10, as in versions without it.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 3, NOT_SUPPORTED = 10 };
enum { R_32F = 0, R_16F = 2, R_16BF = 14, COL = 1, ROW = 2, INDEX_32I = 2 };
enum { CSR = 1, ELL = 5, BSR = 6 };
enum { WORKSPACE = 512 };

typedef struct {
    int is_sparse, format, type, order;
    int64_t rows, columns, leading, nonzeros, block_rows, block_columns, ell_columns;
    const int32_t *offsets, *indices;
    char *values;
    void *active; /* the buffer that preprocess made this matrix's own */
} Matrix;

static struct { char *start; size_t bytes; } known[4096];
static int known_count, alive, preprocessed, refused_type = -1, refused_preprocess;
static void *stream;
static char said[256];

void fake_know(void *start, size_t bytes) { known[known_count].start = start; known[known_count++].bytes = bytes; }
void fake_reset(void) { known_count = preprocessed = refused_preprocess = 0; refused_type = -1; stream = 0; said[0] = 0; }
void fake_refuse(int type, int preprocess) { refused_type = type; refused_preprocess = preprocess; }
int fake_alive(void) { return alive; }
int fake_preprocessed(void) { return preprocessed; }
void *fake_stream(void) { return stream; }
const char *fake_said(void) { return said; }

static int wrong(const char *what) { snprintf(said, sizeof said, "%s", what); return INVALID; }

static int has_room(const void *start, int64_t bytes) {
    for (int i = 0; i < known_count; i++)
        if ((const char *)start >= known[i].start && (const char *)start + bytes <= known[i].start + known[i].bytes) return 1;
    return 0;
}

static int64_t size_of(int type) { return type == R_32F ? 4 : 2; }
static int is_type(int type) { return type == R_32F || type == R_16F || type == R_16BF; }

static double get(const Matrix *matrix, int64_t place) {
    const char *at = matrix->values + place * size_of(matrix->type);
    uint16_t half;
    uint32_t bits;
    float value;
    if (matrix->type == R_32F) { memcpy(&value, at, 4); return value; }
    memcpy(&half, at, 2);
    if (matrix->type == R_16F) { _Float16 small; memcpy(&small, &half, 2); return small; }
    bits = (uint32_t)half << 16;
    memcpy(&value, &bits, 4);
    return value;
}

static void put(Matrix *matrix, int64_t place, double sum) {
    char *at = matrix->values + place * size_of(matrix->type);
    float value = (float)sum;
    uint32_t bits;
    uint16_t half;
    if (matrix->type == R_32F) { memcpy(at, &value, 4); return; }
    if (matrix->type == R_16F) { _Float16 small = (_Float16)sum; memcpy(at, &small, 2); return; }
    memcpy(&bits, &value, 4);
    half = (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
    memcpy(at, &half, 2);
}

int cusparseCreate(void **handle) { *handle = &stream; return OK; }
int cusparseGetVersion(void *handle, int *version) { *version = 12904; return handle == &stream ? OK : INVALID; }
int cusparseSetStream(void *handle, void *asked) { stream = asked; return handle == &stream ? OK : INVALID; }
const char *cusparseGetErrorName(int status) {
    return status == NOT_SUPPORTED ? "CUSPARSE_STATUS_NOT_SUPPORTED" : "CUSPARSE_STATUS_INVALID_VALUE";
}
const char *cusparseGetErrorString(int status) {
    return status == NOT_SUPPORTED ? "operation not supported" : "invalid value";
}

static int made(void **descriptor, Matrix matrix) {
    *descriptor = memcpy(malloc(sizeof matrix), &matrix, sizeof matrix);
    alive++;
    return OK;
}

static int rising(const int32_t *offsets, int64_t rows, int64_t last) {
    for (int64_t i = 0; i < rows; i++)
        if (offsets[i] > offsets[i + 1]) return 0;
    return offsets[0] == 0 && offsets[rows] == last;
}

static int within(const int32_t *indices, int64_t count, int64_t end) {
    for (int64_t i = 0; i < count; i++)
        if (indices[i] < 0 || indices[i] >= end) return 0;
    return 1;
}

int cusparseCreateCsr(void **out, int64_t rows, int64_t columns, int64_t nonzeros, void *offsets, void *indices,
                      void *values, int offsets_type, int indices_type, int base, int type) {
    if (offsets_type != INDEX_32I || indices_type != INDEX_32I || base || !is_type(type)) return wrong("csr types");
    if (!offsets || !indices || !values) return wrong("csr null");
    if (!has_room(offsets, 4 * (rows + 1)) || !has_room(indices, 4 * nonzeros)) return wrong("csr indices");
    if (!has_room(values, size_of(type) * nonzeros)) return wrong("csr values");
    if (!rising(offsets, rows, nonzeros) || !within(indices, nonzeros, columns)) return wrong("csr structure");
    return made(out, (Matrix){1, CSR, type, ROW, rows, columns, 0, nonzeros, 1, 1, 0, offsets, indices, values, 0});
}

int cusparseCreateBsr(void **out, int64_t rows, int64_t columns, int64_t blocks, int64_t block_rows,
                      int64_t block_columns, void *offsets, void *indices, void *values, int offsets_type,
                      int indices_type, int base, int type, int order) {
    if (block_rows != block_columns) return wrong("bsr block"); /* the real one says invalid value too */
    if (offsets_type != INDEX_32I || indices_type != INDEX_32I || base || !is_type(type)) return wrong("bsr types");
    if (order != ROW) return wrong("bsr order");
    if (!offsets || !indices || !values) return wrong("bsr null");
    if (!has_room(offsets, 4 * (rows + 1)) || !has_room(indices, 4 * blocks)) return wrong("bsr indices");
    if (!has_room(values, size_of(type) * blocks * block_rows * block_columns)) return wrong("bsr values");
    if (!rising(offsets, rows, blocks) || !within(indices, blocks, columns)) return wrong("bsr structure");
    return made(out, (Matrix){1, BSR, type, ROW, rows * block_rows, columns * block_columns, 0, blocks, block_rows,
                              block_columns, 0, offsets, indices, values, 0});
}

int cusparseCreateBlockedEll(void **out, int64_t rows, int64_t columns, int64_t side, int64_t ell_columns,
                             void *indices, void *values, int indices_type, int base, int type) {
    if (indices_type != INDEX_32I || base || !is_type(type)) return wrong("ell types");
    if (rows % side || columns % side || ell_columns % side || ell_columns > columns) return wrong("ell sizes");
    int64_t blocks = rows / side * (ell_columns / side);
    if (!has_room(indices, 4 * blocks) || !has_room(values, size_of(type) * rows * ell_columns)) return wrong("ell room");
    if (!within(indices, blocks, columns / side)) return wrong("ell indices"); /* -1 is read as 0: not allowed here */
    return made(out, (Matrix){1, ELL, type, ROW, rows, columns, 0, blocks, side, side, ell_columns, 0, indices, values, 0});
}

int cusparseCreateDnMat(void **out, int64_t rows, int64_t columns, int64_t leading, void *values, int type, int order) {
    if (!is_type(type) || (order != ROW && order != COL)) return wrong("dense types");
    if (leading != (order == ROW ? columns : rows)) return wrong("leading dimension");
    if (!has_room(values, size_of(type) * rows * columns)) return wrong("dense room");
    return made(out, (Matrix){0, 0, type, order, rows, columns, leading, 0, 0, 0, 0, 0, 0, values, 0});
}

static int gone(void *descriptor, int is_sparse) {
    if (!descriptor || ((Matrix *)descriptor)->is_sparse != is_sparse) return wrong("destroyed as another kind");
    free(descriptor);
    alive--;
    return OK;
}
int cusparseDestroySpMat(void *descriptor) { return gone(descriptor, 1); }
int cusparseDestroyDnMat(void *descriptor) { return gone(descriptor, 0); }

static int is_algorithm(int format, int algorithm) {
    if (format == CSR) return algorithm == 0 || algorithm == 4 || algorithm == 6 || algorithm == 12;
    return algorithm == 0 || algorithm == (format == ELL ? 13 : 14);
}

static int checked(void *handle, int op_a, int op_b, const float *alpha, const Matrix *a, const Matrix *b,
                   const float *beta, const Matrix *c, int compute, int algorithm) {
    if (handle != &stream || op_a || op_b || *alpha != 1 || *beta != 0) return wrong("handle, operations or scalars");
    if (!a->is_sparse || b->is_sparse || c->is_sparse) return wrong("operands");
    if (a->columns != b->rows || a->rows != c->rows || b->columns != c->columns) return wrong("dimension mismatch");
    if (compute != R_32F || a->type != b->type || b->type != c->type) return wrong("types of the product");
    if (a->type == refused_type) return NOT_SUPPORTED;
    return is_algorithm(a->format, algorithm) ? OK : wrong("\"alg\" is not valid for this format");
}

int cusparseSpMM_bufferSize(void *handle, int op_a, int op_b, const float *alpha, Matrix *a, Matrix *b,
                            const float *beta, Matrix *c, int compute, int algorithm, size_t *bytes) {
    *bytes = WORKSPACE;
    return checked(handle, op_a, op_b, alpha, a, b, beta, c, compute, algorithm);
}

int cusparseSpMM_preprocess(void *handle, int op_a, int op_b, const float *alpha, Matrix *a, Matrix *b,
                            const float *beta, Matrix *c, int compute, int algorithm, char *workspace) {
    int status = checked(handle, op_a, op_b, alpha, a, b, beta, c, compute, algorithm);
    if (status) return status;
    if (refused_preprocess) return NOT_SUPPORTED;
    if (!has_room(workspace, WORKSPACE)) return wrong("workspace room");
    memset(workspace, algorithm, WORKSPACE);
    a->active = workspace;
    preprocessed++;
    return OK;
}

/* Entry (row, column) of X or Y. */
static int64_t place(const Matrix *matrix, int64_t row, int64_t column) {
    return matrix->order == ROW ? row * matrix->leading + column : column * matrix->leading + row;
}

static double entry(const Matrix *a, const Matrix *b, int64_t row, int64_t column) {
    double sum = 0;
    int64_t bh = a->block_rows, bw = a->block_columns, block_row = row / bh, inner = row % bh;
    int64_t wide = a->format == ELL ? a->ell_columns / bw : 0;
    int64_t first = a->format == ELL ? block_row * wide : a->offsets[block_row];
    int64_t end = a->format == ELL ? first + wide : a->offsets[block_row + 1];
    for (int64_t block = first; block < end; block++)
        for (int64_t j = 0; j < bw; j++) {
            int64_t at = a->format == ELL ? row * a->ell_columns + (block - first) * bw + j : (block * bh + inner) * bw + j;
            sum += get(a, at) * get(b, place(b, a->indices[block] * bw + j, column));
        }
    return sum;
}

int cusparseSpMM(void *handle, int op_a, int op_b, const float *alpha, Matrix *a, Matrix *b, const float *beta,
                 Matrix *c, int compute, int algorithm, char *workspace) {
    int status = checked(handle, op_a, op_b, alpha, a, b, beta, c, compute, algorithm);
    if (status) return status;
    if (!has_room(workspace, WORKSPACE)) return wrong("workspace room");
    if (a->active && a->active != workspace) return wrong("not the buffer that was preprocessed");
    if (a->active)
        for (int i = 0; i < WORKSPACE; i++)
            if (workspace[i] != algorithm) return wrong("the preprocessed buffer was written by another");
    if (!a->active) memset(workspace, 0x55, WORKSPACE);
    for (int64_t row = 0; row < c->rows; row++)
        for (int64_t column = 0; column < c->columns; column++) put(c, place(c, row, column), entry(a, b, row, column));
    return OK;
}
