// The trunk of Small, relu(conv2(relu(conv1(x)))), and its derivatives, one image at a time.
//
// PyTorch computes a layer for the whole batch before the next one, so that every layer goes through memory. Here an
// image passes through all layers while its 12 kB of activations and the 33 kB of weights are in the processor's cache.
// All of it is one small matrix product, `product` below: a few rows of sums that stay in registers.
//
// Layouts: images (C, H, W) as PyTorch has them; inside, the channels are the fastest axis, and what a filter sees
// beyond an edge is there as zeros.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 32;
#elif defined(__AVX__)
constexpr int LANES = 8, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int LANES = 4, REGISTERS = 32;
#else
constexpr int LANES = 4, REGISTERS = 16;
#endif

typedef float Vector __attribute__((vector_size(LANES * 4)));
typedef float Unaligned __attribute__((vector_size(LANES * 4), aligned(4)));
typedef int32_t Integers __attribute__((vector_size(LANES * 4)));
typedef uint8_t Bytes __attribute__((vector_size(LANES)));
typedef uint8_t UnalignedBytes __attribute__((vector_size(LANES), aligned(1)));

static inline Vector load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
static inline void save(float* to, Vector value) { *reinterpret_cast<Unaligned*>(to) = value; }
static inline Vector relu(Vector z) { return z < 0 ? z - z : z; }  // NaN stays NaN
static inline Vector where(Integers mask, Vector value) { return (Vector)((Integers)value & mask); }
static inline Integers positive(Vector z) { return ~(Integers)(z <= 0); }
static inline Integers mask_of(const uint8_t* open) {
  return -__builtin_convertvector(*reinterpret_cast<const UnalignedBytes*>(open), Integers);
}
static inline void keep(uint8_t* open, Integers mask) {
  *reinterpret_cast<UnalignedBytes*>(open) = __builtin_convertvector(-mask, Bytes);
}

constexpr int BLOCK = 8192;  // bytes of weights that stay in the nearest cache while all pixels pass
constexpr int FIRST = 16, SECOND = 32;  // filters of the two layers

// sums[i][v] = sum_t sum_c a[base[i] + offset[t] + c] * w[t][c][v], t the rows of a filter, handed to `store` for every i < n as vectors.
template <int WIDTH, class Store>
static inline void product(int n, const int* base, const float* a, int taps, const int* offset, int channels,
                           const float* w, float* partial, Store store) {
  constexpr int V = WIDTH / LANES;
  constexpr int MANY = (REGISTERS - 3) / V;  // one register for a number of a, two for numbers of w
  constexpr int ROWS = std::clamp(MANY, 1, 12);
  const int block = std::max(1, BLOCK / (channels * WIDTH * 4));
  for (int start = 0; start < taps; start += block) {
    const int end = std::min(start + block, taps);
    for (int first = 0; first < n; first += ROWS) {
      Vector sums[ROWS][V] = {};
      const float* from[ROWS];
      const int many = std::min(n - first, ROWS);
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; r++) from[r] = a + base[r < many ? first + r : n - 1];  // the last ones: not stored
      if (start)
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
          for (int v = 0; v < V; v++)
            sums[r][v] = load(partial + (first + r) * WIDTH + v * LANES);
      const float* weight = w + start * channels * WIDTH;
      for (int t = start; t < end; t++) {
        const int shift = offset[t];
        for (int c = 0; c < channels; c++, weight += WIDTH) {
          Vector column[V];
#pragma GCC unroll 16
          for (int v = 0; v < V; v++) column[v] = load(weight + v * LANES);
#pragma GCC unroll 16
          for (int r = 0; r < ROWS; r++) {
            const float number = from[r][shift + c];
#pragma GCC unroll 16
            for (int v = 0; v < V; v++) sums[r][v] += number * column[v];
          }
        }
      }
      if (end < taps) {
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
          for (int v = 0; v < V; v++) save(partial + (first + r) * WIDTH + v * LANES, sums[r][v]);
      } else {
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++)
          if (r < many) store(first + r, sums[r]);
      }
    }
  }
}

struct Layer {  // a convolution with square filters: input (height, width), output (rows, columns)
  int height, width, size, stride, top, left, rows, columns;
  int padded_height() const { return std::max((rows - 1) * stride + size, height + top); }
  int padded_width() const { return std::max((columns - 1) * stride + size, width + left); }
  int pixels() const { return rows * columns; }
};

// What one thread works in, and where the pixels are that each filter sees.
struct Desk {
  Layer one, two;
  int colours;
  std::vector<float> x, a, d1, d2, dx;           // padded image; padded relu(conv1); gradients behind both layers
  std::vector<int> base1, tap1, base2, tap2;     // offsets in x and a: of windows, and of a window's rows
  std::vector<int> row1, row2;                   // of every number of a window
  std::vector<int> plain, inside;                // outputs of the first layer, one after another; and in a
  struct Class { std::vector<int> base, target; };
  std::vector<Class> classes;                    // input pixels of conv2 that see the same taps
  std::vector<int> back;                         // of the rows of what such a pixel is seen by, offsets in d2
  int reach, wide2;                              // outputs along an axis that see a pixel; width of d2 with its zeros

  Desk(const Layer& one, const Layer& two, int colours) : one(one), two(two), colours(colours) {
    x.assign(one.padded_height() * one.padded_width() * colours, 0);
    a.assign(two.padded_height() * two.padded_width() * FIRST, 0);
    dx.assign(x.size(), 0);
    d1.assign(one.pixels() * FIRST, 0);
    partial.assign((one.pixels() + two.size * two.size * FIRST + 16) * 48, 0);
    reach = (two.size + two.stride - 1) / two.stride;
    const int tall2 = std::max(two.rows, (two.top + two.height - 1) / two.stride + 1) + reach - 1;
    wide2 = std::max(two.columns, (two.left + two.width - 1) / two.stride + 1) + reach - 1;
    d2.assign(tall2 * wide2 * SECOND, 0);
    windows(one, colours, base1, tap1);
    windows(two, FIRST, base2, tap2);
    for (int t : tap1) for (int c = 0; c < one.size * colours; c++) row1.push_back(t + c);
    for (int t : tap2) for (int c = 0; c < two.size * FIRST; c++) row2.push_back(t + c);
    for (int i = 0; i < one.rows; i++)
      for (int j = 0; j < one.columns; j++) {
        plain.push_back((i * one.columns + j) * FIRST);
        inside.push_back(((i + two.top) * two.padded_width() + j + two.left) * FIRST);
      }
    classes.resize(two.stride * two.stride);
    for (int i = 0; i < two.height; i++)
      for (int j = 0; j < two.width; j++) {
        const int u = i + two.top, v = j + two.left;
        Class& own = classes[(u % two.stride) * two.stride + v % two.stride];
        own.base.push_back(((u / two.stride) * wide2 + v / two.stride) * SECOND);
        own.target.push_back((i * two.width + j) * FIRST);
      }
    for (int m = 0; m < reach; m++) back.push_back(m * wide2 * SECOND);
  }

  static void windows(const Layer& layer, int channels, std::vector<int>& base, std::vector<int>& tap) {
    const int wide = layer.padded_width() * channels;
    for (int i = 0; i < layer.rows; i++)
      for (int j = 0; j < layer.columns; j++) base.push_back(i * layer.stride * wide + j * layer.stride * channels);
    for (int i = 0; i < layer.size; i++) tap.push_back(i * wide);
  }

  void read(const float* image) {
    for (int c = 0; c < colours; c++)
      for (int i = 0; i < one.height; i++) {
        float* to = &x[((i + one.top) * one.padded_width() + one.left) * colours + c];
        for (int j = 0; j < one.width; j++) to[j * colours] = *image++;
      }
  }

  // a = conv1(x) and then relu, which `open` remembers; with `linear` no bias, and `open` is the relu.
  void first(const float* w1, const float* b1, uint8_t* open, bool linear) {
    product<FIRST>(one.pixels(), base1.data(), x.data(), one.size, tap1.data(), one.size * colours, w1,
                   partial.data(), [&](int p, const Vector* sums) {
                     float* to = &a[inside[p]];
                     uint8_t* mask = open + p * FIRST;
#pragma GCC unroll 16
                     for (int v = 0; v < FIRST / LANES; v++) {
                       if (linear) {
                         save(to + v * LANES, where(mask_of(mask + v * LANES), sums[v]));
                       } else {
                         const Vector z = sums[v] + load(b1 + v * LANES);
                         save(to + v * LANES, relu(z));
                         keep(mask + v * LANES, positive(z));
                       }
                     }
                   });
  }

  // h = relu(conv2(a)); with `linear` no bias, and the relu is that of `seen`, its output at the image.
  void second(const float* w2, const float* b2, const float* seen, float* h) {
    product<SECOND>(two.pixels(), base2.data(), a.data(), two.size, tap2.data(), two.size * FIRST, w2,
                    partial.data(), [&](int p, const Vector* sums) {
#pragma GCC unroll 16
                      for (int v = 0; v < SECOND / LANES; v++) {
                        const int at = p * SECOND + v * LANES;
                        save(h + at, seen ? where(positive(load(seen + at)), sums[v]) : relu(sums[v] + load(b2 + v * LANES)));
                      }
                    });
  }

  // d2 = dh where h is open.
  void behind(const float* dh, const float* h) {
    for (int i = 0; i < two.rows; i++) {
      float* to = &d2[((i + reach - 1) * wide2 + reach - 1) * SECOND];
      for (int c = 0; c < two.columns * SECOND; c++) to[c] = !(h[c] <= 0) ? dh[c] : 0;
      dh += two.columns * SECOND;
      h += two.columns * SECOND;
    }
  }

  // d1 = conv2' d2 where `open`: every input pixel collects from the outputs that it is seen by.
  void between(const float* w2t, const uint8_t* open) {
    for (size_t k = 0; k < classes.size(); k++) {
      const Class& own = classes[k];
      product<FIRST>(int(own.base.size()), own.base.data(), d2.data(), reach, back.data(), reach * SECOND,
                     w2t + k * reach * reach * SECOND * FIRST, partial.data(), [&](int p, const Vector* sums) {
                       const int at = own.target[p];
#pragma GCC unroll 16
                       for (int v = 0; v < FIRST / LANES; v++)
                         save(&d1[at + v * LANES], where(mask_of(open + at + v * LANES), sums[v]));
                     });
    }
  }

  // image = conv1' d1: every output adds its part to the pixels that it sees.
  template <int WIDTH>
  void before(const float* w1t, float* image) {
    constexpr int RUN = WIDTH / 4;  // numbers in a row of the filter
    const int zero = 0;
    std::fill(dx.begin(), dx.end(), 0.f);
    product<WIDTH>(one.pixels(), plain.data(), d1.data(), 1, &zero, FIRST, w1t, partial.data(), [&](int p, const Vector* sums) {
      float row[WIDTH];
      std::memcpy(row, sums, sizeof row);
      for (int i = 0; i < 4; i++) {
        float* to = &dx[base1[p] + tap1[i]];
        for (int c = 0; c < RUN; c++) to[c] += row[i * RUN + c];
      }
    });
    for (int c = 0; c < colours; c++)
      for (int i = 0; i < one.height; i++) {
        const float* from = &dx[((i + one.top) * one.padded_width() + one.left) * colours + c];
        for (int j = 0; j < one.width; j++) *image++ = from[j * colours];
      }
  }

  template <int WIDTH>
  static void add(float* to, const Vector* sums) {
#pragma GCC unroll 16
    for (int v = 0; v < WIDTH / LANES; v++) save(to + v * LANES, load(to + v * LANES) + sums[v]);
  }

  // The weights' gradients of this image, added to those of the images before.
  void weights(float* g1, float* g2, float* b1, float* b2) {
    packed.resize(two.pixels() * SECOND);
    for (int i = 0; i < two.rows; i++)
      std::memcpy(&packed[i * two.columns * SECOND], &d2[((i + reach - 1) * wide2 + reach - 1) * SECOND],
                  two.columns * SECOND * sizeof(float));
    product<SECOND>(int(row2.size()), row2.data(), a.data(), two.pixels(), base2.data(), 1, packed.data(), partial.data(),
                    [&](int r, const Vector* sums) { add<SECOND>(g2 + r * SECOND, sums); });
    product<FIRST>(int(row1.size()), row1.data(), x.data(), one.pixels(), base1.data(), 1, d1.data(), partial.data(),
                   [&](int r, const Vector* sums) { add<FIRST>(g1 + r * FIRST, sums); });
    if (b1) {
      for (int p = 0; p < one.pixels(); p++) for (int c = 0; c < FIRST; c++) b1[c] += d1[p * FIRST + c];
      for (int p = 0; p < two.pixels(); p++) for (int c = 0; c < SECOND; c++) b2[c] += packed[p * SECOND + c];
    }
  }
  std::vector<float> packed, partial;
};

struct Network {  // must agree with _Network in compiled.py
  int height, width, colours, size1, stride1, top1, left1, rows1, columns1, size2, stride2, top2, left2, rows2, columns2;
  const float *w1, *b1, *w2, *b2, *w1t, *w2t;

  Desk desk() const {
    return Desk({height, width, size1, stride1, top1, left1, rows1, columns1},
                {rows1, columns1, size2, stride2, top2, left2, rows2, columns2}, colours);
  }
  long image() const { return long(height) * width * colours; }
  long middle() const { return long(rows1) * columns1 * FIRST; }
  long output() const { return long(rows2) * columns2 * SECOND; }
};

extern "C" {

// h = trunk(x), and which units of the first layer are open; with `seen`, the h of before, the linear map W2 W1 x
// between the units that were open then.
void push(const Network* net, int threads, long n, const float* x, uint8_t* open, const float* seen, float* h) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    Desk desk = net->desk();
#pragma omp for schedule(static)
    for (long i = 0; i < n; i++) {
      desk.read(x + i * net->image());
      desk.first(net->w1, net->b1, open + i * net->middle(), seen);
      desk.second(net->w2, net->b2, seen ? seen + i * net->output() : nullptr, h + i * net->output());
    }
  }
}

// dx = W1' W2' dh between the units that are open.
void pull(const Network* net, int threads, long n, const float* dh, const uint8_t* open, const float* h, float* dx) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    Desk desk = net->desk();
#pragma omp for schedule(static)
    for (long i = 0; i < n; i++) {
      desk.behind(dh + i * net->output(), h + i * net->output());
      desk.between(net->w2t, open + i * net->middle());
      if (net->colours == 1) desk.before<16>(net->w1t, dx + i * net->image());
      else desk.before<48>(net->w1t, dx + i * net->image());
    }
  }
}

// Gradients of sum <dh, h(x)> with respect to the weights, and biases; with `linear` of sum <dh, push(x)>, which has no
// biases. `parts` has room for each thread's own sums: (threads, taps1 * colours * 16 + taps2 * 16 * 32 + 16 + 32).
void weights(const Network* net, int threads, long n, const float* x, const float* dh, const uint8_t* open,
             const float* h, int linear, float* parts) {
  const long size1 = long(net->size1) * net->size1 * net->colours * FIRST;
  const long size2 = long(net->size2) * net->size2 * FIRST * SECOND;
  const long all = size1 + size2 + FIRST + SECOND;
  const long each = (n + threads - 1) / threads;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
  for (int thread = 0; thread < threads; thread++) {  // the images of a thread are the same in every run
    Desk desk = net->desk();
    std::vector<uint8_t> again(net->middle());
    float* own = parts + thread * all;
    for (long i = thread * each; i < n && i < (thread + 1) * each; i++) {
      desk.read(x + i * net->image());
      const uint8_t* mask = open + i * net->middle();
      if (linear) std::memcpy(again.data(), mask, again.size());
      desk.first(net->w1, net->b1, again.data(), linear);
      desk.behind(dh + i * net->output(), h + i * net->output());
      desk.between(net->w2t, mask);
      desk.weights(own, own + size1, linear ? nullptr : own + size1 + size2, own + size1 + size2 + FIRST);
    }
  }
}

int lanes() { return LANES; }
}
