// A whole attack of an image of Small, all steps, while the image and the network's weights stay in cache.
//
// What is climbed is one of six objectives. With h = trunk(x'), logits f = M h + m, maps = the composed convolution
// of h, and p = softmax(f), each adds to `dh`, or to the gradients behind the first layer, its part of the derivative:
//
//   cross-entropy of y                          p - e_y                                                by f
//   KL(q || p), q given                         p - q                                                  by f
//   <G, h>, G given                             G                                                      by h
//   discrepancy from the maps of an image       signs of the changes; through the weights p of eq. (8) by the maps
//   margin and discrepancy, eq. (6)             the two leading classes by f; changes or their signs by the maps
//   ||IG(x, x')||_1 of the cross-entropy        see `path`                                             by x'
//
// Layouts: as in trunk.cpp; rows of a map, of 8 pixels at most, are one vector.

#include "trunk.cpp"

#include <cmath>

typedef float Row __attribute__((vector_size(32)));
typedef float UnalignedRow __attribute__((vector_size(32), aligned(4)));

constexpr int WIDE = 8;      // pixels of a row of a map, at most
constexpr int CLASSES = 10;  // classes, and channels, whose sums stay in registers together
constexpr int CHANNELS = 8;

enum Kind { CROSS_ENTROPY, DIVERGENCE, PROBE, TARGET_FREE, TRUE_CLASS, PATH, SNEAKING };

struct Head {  // must agree with _Head in compiled.py
  int classes, size, top, left;  // size and padding of the maps' filters
  const float *matrix, *offset;  // M (classes, rows2 * columns2 * 32), m
  const float *kernel;           // (blocks of 10 classes, size, 32, size, 10): the maps' filters, in units of eq. (1)
  const float *kernel_t;         // (4, size, classes, size, 8): the same, turned round
  const float *shift, *bias;     // what every pixel of a map has besides, and every logit
};

struct Objective {  // must agree with _Objective in compiled.py
  int kind, points;        // points: of the path
  float cross_entropy;     // weight of -log p_y, negative for a target
  float weight;            // of the other term
  const int64_t* y;
  const float* reference;  // q (N, classes), G (N, rows2, columns2, 32), or images x (N, C, H, W)
  // Of eq. (6), where y is the target: weight of each class's distance (N, classes), gamma (N,), tau; l1 or l2, squared
  // or not.
  const float *shares, *gamma;
  float tau;
  int power, squared;
  bool of_maps() const { return kind == TARGET_FREE || kind == TRUE_CLASS || kind == SNEAKING; }
};

// out[i][b] = sum_{j, c, j'} w[j][c][j'][b] in[i + j - before][c][j' ..], rows of 8 pixels, channels from .. to.
template <int B>
static void correlate(int rows, int channels, int from, int to, int size, int before, const float* in, int wide,
                      const float* w, Row* out, int stride) {
  for (int i = 0; i < rows; i++) {
    Row sums[B] = {};
    for (int j = std::max(0, before - i); j < std::min(size, rows + before - i); j++)
      for (int c = from; c < to; c++) {
        const float* line = in + ((i + j - before) * channels + c) * wide;
        const float* weight = w + (j * channels + c) * size * B;
        for (int k = 0; k < size; k++, weight += B) {
          const Row pixels = *reinterpret_cast<const UnalignedRow*>(line + k);
#pragma GCC unroll 16
          for (int b = 0; b < B; b++) sums[b] += weight[b] * pixels;
        }
      }
    for (int b = 0; b < B; b++) out[i * stride + b] = sums[b];
  }
}

struct Image : Desk {  // one image on its way up, and what a thread needs for it
  const Head& head;
  const Objective& what;
  const int numbers, middle, wide, blocks;
  std::vector<uint8_t> open;                     // units of the first layer, of every point
  std::vector<float> h, dh, f, p, log_p, r;      // trunk of every point, and its gradient; logits, softmax, by the logits
  std::vector<float> z, dm;                      // h and the maps' gradients, a row after another, with zeros around
  std::vector<Row> maps, clean, back_rows;
  std::vector<float> apart, all;                 // of every class: how far its map has moved; softmax of all logits
  std::vector<float> before_x, along, sum;       // of the path: conv1 at x and of x' - x; gradients behind conv1
  std::vector<float> attack, change;             // of the path: gradient behind conv1 of the last point; trunk of v
  std::vector<float> gradient, other, moved;

  Image(const Network& net, const Head& head, const Objective& what)
      : Desk(net.desk()), head(head), what(what), numbers(int(net.output())), middle(int(net.middle())),
        wide(WIDE + head.size - 1), blocks((head.classes + CLASSES - 1) / CLASSES) {
    const int points = what.kind == PATH ? what.points : 1;
    open.assign(points * middle, 0);
    h.assign(points * numbers, 0);
    dh.assign(numbers, 0);
    f.assign(head.classes, 0);
    p.assign(points * head.classes, 0);
    log_p.assign(head.classes, 0);
    r.assign(head.classes, 0);
    gradient.assign(net.image(), 0);
    if (what.kind == PATH) {
      before_x.assign(middle, 0);
      along.assign(middle, 0);
      sum.assign(middle, 0);
      other.assign(net.image(), 0);
      moved.assign(net.image(), 0);
    }
    if (what.of_maps()) {
      z.assign(two.rows * SECOND * wide + WIDE, 0);
      dm.assign(two.rows * head.classes * wide + WIDE, 0);
      maps.assign(blocks * two.rows * CLASSES, Row{});
      clean = maps;
      back_rows.assign(two.rows * SECOND, Row{});
      apart.assign(head.classes, 0);
      all.assign(head.classes, 0);
    }
  }

  // f = M h + m.
  void logits(const float* h, const float* offset) {
    for (int c = 0; c < head.classes; c++) {
      const float* row = head.matrix + long(c) * numbers;
      Row sums[4] = {};
      int i = 0;
      for (; i + 4 * WIDE <= numbers; i += 4 * WIDE)
        for (int v = 0; v < 4; v++)
          sums[v] += *reinterpret_cast<const UnalignedRow*>(row + i + v * WIDE) *
                     *reinterpret_cast<const UnalignedRow*>(h + i + v * WIDE);
      const Row all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
      float total = 0;
      for (int v = 0; v < WIDE; v++) total += all[v];
      for (; i < numbers; i++) total += row[i] * h[i];
      f[c] = total + (offset ? offset[c] : 0);
    }
  }

  // dh = M' r.
  void spread() {
    std::fill(dh.begin(), dh.end(), 0.f);
    for (int c = 0; c < head.classes; c++) {
      const float* row = head.matrix + long(c) * numbers;
      const float own = r[c];
      for (int i = 0; i < numbers; i++) dh[i] += own * row[i];
    }
  }

  // p = softmax(f), by way of log p, in single precision as PyTorch's: where it is 1, the gradient is 0. Returns -log p_y.
  float softmax(float* p, int64_t y) {
    float top = f[0], total = 0;
    for (int c = 1; c < head.classes; c++) top = f[c] > top ? f[c] : top;
    for (int c = 0; c < head.classes; c++) total += std::exp(f[c] - top);
    const float log_total = std::log(total);
    for (int c = 0; c < head.classes; c++) {
      log_p[c] = f[c] - top - log_total;
      p[c] = std::exp(log_p[c]);
    }
    return y < 0 ? 0 : -log_p[y];
  }

  // d1 from dh: back through the second layer and the first ReLU.
  void back(const Network& net, const float* h, const uint8_t* open) {
    behind(dh.data(), h);
    between(net.w2t, open);
  }

  void to_pixels(const Network& net, float* image) {
    if (colours == 1) before<16>(net.w1t, image);
    else before<48>(net.w1t, image);
  }

  void forward(const Network& net, const float* x) {
    read(x);
    first(net.w1, net.b1, open.data(), false);
    second(net.w2, net.b2, nullptr, h.data());
  }

  // maps = the composed convolution of h, in units of eq. (1).
  void explain(std::vector<Row>& maps) {
    for (int i = 0; i < two.rows; i++)
      for (int j = 0; j < two.columns; j++)
        for (int c = 0; c < SECOND; c++)
          z[(i * SECOND + c) * wide + head.left + j] = h[(i * two.columns + j) * SECOND + c];
    for (int b = 0; b < blocks; b++)
      correlate<CLASSES>(two.rows, SECOND, 0, SECOND, head.size, head.top, z.data(), wide,
                         head.kernel + long(b) * head.size * SECOND * head.size * CLASSES,
                         &maps[b * two.rows * CLASSES], CLASSES);
  }

  Row& pixel_row(std::vector<Row>& maps, int c, int i) {
    return maps[(c / CLASSES * two.rows + i) * CLASSES + c % CLASSES];
  }

  // The maps at x', their logits f, and `apart`: the l1 norm of each class's change, or the square of its l2 norm.
  void compare(int power) {
    explain(maps);
    std::fill(apart.begin(), apart.end(), 0.f);
    for (int c = 0; c < head.classes; c++) {
      float total = 0;
      for (int i = 0; i < two.rows; i++) {
        const Row &now = pixel_row(maps, c, i), &then = pixel_row(clean, c, i);
        for (int j = 0; j < two.columns; j++) {
          const float change = now[j] - then[j];
          total += now[j] + head.shift[c];
          apart[c] += power == 1 ? std::abs(change) : change * change;
        }
      }
      f[c] = total + head.bias[c];
    }
  }

  // dh from the gradient by each pixel of the maps of classes from .. to: r, and p times the change or its sign.
  void to_trunk(int from, int to, int power, float weight) {
    const int margin = head.size - 1 - head.left;
    for (int c = from; c < to; c++)
      for (int i = 0; i < two.rows; i++) {
        const Row &now = pixel_row(maps, c, i), &then = pixel_row(clean, c, i);
        float* line = &dm[(i * head.classes + c) * wide + margin];
        for (int j = 0; j < two.columns; j++) {
          const float change = now[j] - then[j];
          line[j] = r[c] + weight * p[c] * (power == 1 ? (change > 0) - (change < 0) : change);
          if (change != change) line[j] = change;
        }
      }
    for (int b = 0; b < SECOND / CHANNELS; b++)
      correlate<CHANNELS>(two.rows, head.classes, from, to, head.size, head.size - 1 - head.top, dm.data(), wide,
                          head.kernel_t + long(b) * head.size * head.classes * head.size * CHANNELS,
                          &back_rows[b * CHANNELS], SECOND);
    for (int i = 0; i < two.rows; i++)
      for (int j = 0; j < two.columns; j++)
        for (int c = 0; c < SECOND; c++) dh[(i * two.columns + j) * SECOND + c] = back_rows[i * SECOND + c][j];
  }

  // The negative of eq. (6) divided by lambda, -max{ max_{j != t'} f_j - f_t', -tau } - gamma D; dh = its gradient. With
  // t in the place of t' and a gamma below 0, eq. (7); the margin has `weight`.
  float sneaking(long i, int64_t target) {
    const float *share = what.shares + i * head.classes, gamma = what.gamma[i];
    std::fill(p.begin(), p.end(), 0.f);
    if (gamma) compare(what.power);
    else logits(h.data(), head.offset);  // the plain attack, which sees no maps
    int rival = target ? 0 : 1;
    for (int c = 0; c < head.classes; c++)
      if (c != target && !(f[c] <= f[rival])) rival = c;  // a NaN becomes the rival, and shows in the value
    const float margin = f[rival] - f[target];
    float value = -what.weight * (margin > -what.tau || margin != margin ? margin : -what.tau);
    std::fill(r.begin(), r.end(), 0.f);
    int from = head.classes, to = 0;  // the classes whose maps count
    for (int c = 0; c < head.classes && gamma; c++) {
      if (!share[c]) continue;
      from = std::min(from, c);
      to = c + 1;
      const float norm = what.power == 1 ? apart[c] : std::sqrt(apart[c]);
      value -= gamma * share[c] * (what.squared ? norm * norm : norm);
      const float outer = what.squared ? 2 * norm : 1;
      p[c] = -gamma * share[c] * (what.power == 1 ? outer : norm > 0 ? outer / norm : 0);
    }
    if (from < to) to_trunk(from, to, what.power, 1);
    else std::fill(dh.begin(), dh.end(), 0.f);
    if (margin >= -what.tau)
      for (int k = 0; k < numbers; k++)
        dh[k] += what.weight * (head.matrix[long(target) * numbers + k] - head.matrix[long(rival) * numbers + k]);
    return value;
  }

  // Value of the discrepancy and the cross-entropy; dh = their gradient. r is what each class's map gets everywhere.
  float discrepancy(int64_t y) {
    compare(1);
    float value = what.weight * apart[y];
    std::fill(r.begin(), r.end(), 0.f);
    std::fill(p.begin(), p.end(), 0.f);
    if (what.kind == TARGET_FREE) {
      const float own = f[y];
      f[y] = -INFINITY;
      softmax(p.data(), -1);
      f[y] = own;
      float mean = 0;
      for (int c = 0; c < head.classes; c++) mean += p[c] * apart[c];
      value += what.weight * mean;
      for (int c = 0; c < head.classes; c++) r[c] = what.weight * p[c] * (apart[c] - mean);
    }
    p[y] = 1;
    if (what.cross_entropy) {
      value += what.cross_entropy * softmax(all.data(), y);
      for (int c = 0; c < head.classes; c++) r[c] += what.cross_entropy * (all[c] - (c == y));
    }
    const bool one = what.kind == TRUE_CLASS && !what.cross_entropy;
    to_trunk(one ? int(y) : 0, one ? int(y) + 1 : head.classes, 1, what.weight);
    return value;
  }

  // conv1 of an image, without bias or ReLU.
  void linear(const Network& net, const float* image, float* out) {
    read(image);
    product<FIRST>(one.pixels(), base1.data(), x.data(), one.size, tap1.data(), one.size * colours, net.w1,
                   partial.data(), [&](int p, const Vector* sums) { std::memcpy(out + p * FIRST, sums, FIRST * 4); });
  }

  // a = relu(conv1) at the point start + t change of the path, and which units are open.
  void enter(const float* start, const float* change, float t, uint8_t* open) {
    for (int p = 0; p < one.pixels(); p++)
#pragma GCC unroll 16
      for (int v = 0; v < FIRST; v += LANES) {
        const int at = p * FIRST + v;
        const Vector value = load(start + at) + t * load(change + at);
        save(&a[inside[p] + v], relu(value));
        keep(open + at, positive(value));
      }
  }

  // a = conv1 of a change, between the units that are open.
  void enter(const float* change, const uint8_t* open) {
    for (int p = 0; p < one.pixels(); p++)
#pragma GCC unroll 16
      for (int v = 0; v < FIRST; v += LANES) {
        const int at = p * FIRST + v;
        save(&a[inside[p] + v], where(mask_of(open + at), load(change + at)));
      }
  }

  // Value of the path's norm and the cross-entropy, and their gradient by x'. With d = x' - x, x_s = x + s/m d, g the
  // mean of the gradients of l = -log p_y at the points, and J_s the network's Jacobian at x_s,
  //
  //   ||IG||_1 = sum |d g|,      by x':  sign(d g) g + 1/m sum_s s/m J_s' (diag p - p p') J_s v,    v = |d| sign(g).
  //
  // The first layer is affine: at the points it is a straight line, and what comes back is summed before it.
  float path(const Network& net, const float* x_adv, const float* x, int64_t y) {
    const int m = what.points;
    float last = 0;
    for (size_t i = 0; i < moved.size(); i++) moved[i] = x_adv[i] - x[i];
    linear(net, moved.data(), along.data());
    std::fill(sum.begin(), sum.end(), 0.f);
    for (int s = 0; s < m; s++) {
      float *own = &h[s * numbers], *soft = &p[s * head.classes];
      uint8_t* mask = &open[s * middle];
      enter(before_x.data(), along.data(), float(s + 1) / m, mask);
      second(net.w2, net.b2, nullptr, own);
      logits(own, head.offset);
      last = softmax(soft, y);
      for (int c = 0; c < head.classes; c++) r[c] = (soft[c] - (c == y)) / m;
      spread();
      back(net, own, mask);
      for (int k = 0; k < middle; k++) sum[k] += d1[k];
    }
    // d1 of the last point is of the cross-entropy at x' as well, but for m.
    if (what.cross_entropy) attack.assign(d1.begin(), d1.end());
    d1.swap(sum);
    to_pixels(net, gradient.data());
    d1.swap(sum);
    float norm = 0;
    for (size_t i = 0; i < moved.size(); i++) {
      const float product = moved[i] * gradient[i];
      const float sign = (product > 0) - (product < 0);
      norm += std::abs(product);
      other[i] = sign * gradient[i];
      moved[i] *= sign;
    }
    linear(net, moved.data(), along.data());
    for (int k = 0; k < middle; k++) sum[k] = what.cross_entropy ? what.cross_entropy * m * attack[k] : 0;
    for (int s = 0; s < m; s++) {
      const float *own = &h[s * numbers], *soft = &p[s * head.classes];
      uint8_t* mask = &open[s * middle];
      enter(along.data(), mask);
      second(net.w2, net.b2, own, change.data());
      logits(change.data(), nullptr);
      float mean = 0;
      for (int c = 0; c < head.classes; c++) mean += soft[c] * f[c];
      for (int c = 0; c < head.classes; c++) r[c] = what.weight * (s + 1) / (float(m) * m) * soft[c] * (f[c] - mean);
      spread();
      back(net, own, mask);
      for (int k = 0; k < middle; k++) sum[k] += d1[k];
    }
    d1.swap(sum);
    to_pixels(net, gradient.data());
    d1.swap(sum);
    for (size_t i = 0; i < gradient.size(); i++) gradient[i] += what.weight * other[i];
    return what.weight * norm + (what.cross_entropy ? what.cross_entropy * last : 0);
  }
  // What does not change while image i climbs.
  void begin(const Network& net, long i) {
    const float* reference = what.reference + i * net.image();
    if (what.kind == PATH) {
      change.resize(numbers);
      linear(net, reference, before_x.data());
      for (int k = 0; k < middle; k++) before_x[k] += net.b1[k % FIRST];
    } else if (what.of_maps() && !(what.kind == SNEAKING && !what.gamma[i])) {
      forward(net, reference);
      explain(clean);
    }
  }

  // Value at x'; its derivative in `gradient`.
  float evaluate(const Network& net, long i, const float* x_adv) {
    const int64_t y = what.y ? what.y[i] : -1;
    if (what.kind == PATH) return path(net, x_adv, what.reference + i * net.image(), y);
    forward(net, x_adv);
    float value = 0;
    if (what.kind == PROBE) {
      const float* own = what.reference + i * numbers;
      for (int k = 0; k < numbers; k++) {
        value += own[k] * h[k];
        dh[k] = own[k];
      }
    } else if (what.of_maps()) {
      value = what.kind == SNEAKING ? sneaking(i, y) : discrepancy(y);
    } else {
      logits(h.data(), head.offset);
      const float loss = softmax(p.data(), y);
      if (what.kind == CROSS_ENTROPY) {
        value = what.cross_entropy * loss;
        for (int c = 0; c < head.classes; c++) r[c] = what.cross_entropy * (p[c] - (c == y));
      } else {
        const float* q = what.reference + i * head.classes;
        for (int c = 0; c < head.classes; c++) {
          if (q[c] > 0) value += q[c] * (std::log(q[c]) - log_p[c]);
          r[c] = p[c] - q[c];
        }
      }
      spread();
    }
    back(net, h.data(), open.data());
    to_pixels(net, gradient.data());
    return value;
  }
};

extern "C" {

// Takes `steps` steps uphill from x, between low and high: alpha (N,) times the gradient's sign, or where `slope` is
// not 0, times clip(slope * gradient, -1, 1). `sound` is 0 of an image where a number was none. Without steps: value and
// gradient at x.
void climb(const Network* net, const Head* head, const Objective* what, int threads, long n, float* x, const float* low,
           const float* high, const float* alpha, float slope, int steps, float* values, float* gradients, uint8_t* sound) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    Image image(*net, *head, *what);
    const long size = net->image();
#pragma omp for schedule(static)
    for (long i = 0; i < n; i++) {
      float* own = x + i * size;
      image.begin(*net, i);
      float numbers = 0;
      for (int step = 0; step < std::max(steps, 1); step++) {
        const float value = image.evaluate(*net, i, own);
        numbers += 0 * value;
        for (long k = 0; k < size; k++) numbers += 0 * image.gradient[k];
        if (!steps) {
          values[i] = value;
          std::memcpy(gradients + i * size, image.gradient.data(), size * sizeof(float));
          continue;
        }
        for (long k = 0; k < size; k++) {
          const float g = image.gradient[k], steep = std::min(std::max(slope * g, -1.f), 1.f);
          const float moved = own[k] + alpha[i] * (slope ? steep : (g > 0) - (g < 0));
          own[k] = std::min(std::max(moved, low[i * size + k]), high[i * size + k]);
        }
      }
      sound[i] = numbers == 0;
    }
  }
}
}
