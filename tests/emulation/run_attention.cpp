// attention in the emulator, at small and odd shapes, against sums in double.

#include "cases.h"

namespace {

// What alone is off multiples of 16 bytes; `unaligned`: nothing is kept at them.
enum class Odd { unaligned, qkv, image, position, part, head, head_dim, out };

struct Heads {
  int64_t batch, length, heads, head_dim;
  int64_t wanted;  // -1: all
  bool causal;
  int64_t gap = 8;  // between positions; odd: rows that whole copies can't read
  Odd odd = Odd::unaligned;
};

// Scores are some units apart; or `steep`: hundreds, so that the weights of a wrong maximum
// overflow; or `far`: of the first keys -infinity. Positions of a list are drawn, but for three
// that aren't any.
enum class Scores { near, steep, far };

template <class T>
std::string attention(const Heads& h, Scores scores = Scores::near) {
  state = 17;
  const auto [B, L, H, hd, given, causal, gap, odd] = h;
  const auto size = [odd = h.odd](int64_t least, Odd which) {
    return odd == Odd::unaligned ? least : (least + 7) / 8 * 8 + (odd == which);
  };
  const int64_t Lq = given < 0 ? L : given;
  const int64_t apart = size(hd, Odd::head), part_stride = size(H * apart, Odd::part);
  const int64_t stride = size(3 * part_stride + gap, Odd::position);
  const int64_t image = size(L * stride + 2 * gap, Odd::image);
  const int64_t within = 2 * part_stride + (H - 1) * apart + hd;
  const int64_t last = B * L > 0 ? (B - 1) * image + (L - 1) * stride + within : 0;
  Buffer<T> qkv(last, true, Off{odd == Odd::qkv}),
      out(B * Lq * H * hd, false, Off{odd == Odd::out});
  Buffer<int64_t> queries(B * Lq, true);
  for (int64_t b = 0; b < B; ++b)
    for (int64_t l = 0; l < L; ++l)
      for (int64_t i = 0; i < 3 * H * hd; ++i) {
        const bool query = i < H * hd, key = !query && i < 2 * H * hd, far = scores == Scores::far;
        float value = number() * (!query ? 1 : scores == Scores::steep ? 1000 : 5);
        if (far && query) value = 1e3f;
        if (far && key && l < 70) value = -1e37f;
        const int64_t at = i / (H * hd) * part_stride + i / hd % H * apart + i % hd;
        from_float(value, qkv.data() + b * image + l * stride + at);
      }
  for (int64_t i = 0; i < B * Lq; ++i)
    queries.data()[i] = (given < 0 ? i : i * 37 + 11) % std::max<int64_t>(L, 1);
  if (given > 3) queries.data()[1] = -1, queries.data()[2] = L, queries.data()[3] = 1ll << 40;
  Attention a{};
  a.out = out.data(), a.qkv = qkv.data(), a.queries = given < 0 ? nullptr : queries.data();
  a.batch = B, a.length = L, a.wanted = Lq, a.heads = H, a.head_dim = hd;
  a.batch_stride = image, a.position_stride = stride, a.part_stride = part_stride;
  a.head_stride = apart;
  a.dtype = dtype<T>, a.causal = causal, a.scale = 1 / std::sqrt(static_cast<float>(hd));
  if (const char* error = cuda::attention_by(a, emu::Emulated{})) return error;
  const double unit_of_sum = scores == Scores::steep ? 0x1p-12 : 0x1p-18;
  std::vector<double> weight(L);
  for (int64_t row = 0; row < B * Lq * H; ++row) {
    const int64_t b = row / H / Lq, head = row % H, query = queries.data()[row / H];
    const bool exists = query >= 0 && query < L;
    const auto at = [&](int64_t l, int64_t part, int64_t d) {
      return double{qkv[b * image + l * stride + part * part_stride + head * apart + d]};
    };
    double most = -INFINITY, total = 0;
    const int64_t seen = !exists ? 0 : causal ? query + 1 : L;
    for (int64_t l = 0; l < seen; ++l) {
      weight[l] = 0;
      for (int64_t d = 0; d < hd; ++d) weight[l] += at(query, 0, d) * at(l, 1, d) * a.scale;
      if (weight[l] < -1e30) weight[l] = -INFINITY;
      most = std::max(most, weight[l]);
    }
    for (int64_t l = 0; l < seen; ++l) total += weight[l] = std::exp(weight[l] - most);
    for (int64_t d = 0; d < hd; ++d) {
      double wanted = 0, sizes = 0;
      for (int64_t l = 0; l < seen; ++l) {
        wanted += weight[l] / total * at(l, 2, d),
            sizes += weight[l] / total * std::abs(at(l, 2, d));
      }
      const double got = out[row * hd + d],
                   bound = (unit<T> + unit_of_sum) * (std::abs(wanted) + sizes);
      if (exists ? !(std::abs(got - wanted) <= bound) : got == got)
        return differs("out", row * hd + d, got, exists ? wanted : NAN);
    }
  }
  return "ok";
}

template <class T>
void add_cases(std::vector<Case>& all, const std::string& type) {
  constexpr Heads heads[] = {
      {1, 1, 1, 64, -1, false},     {2, 5, 3, 8, -1, true},       {1, 17, 2, 24, -1, false},
      {1, 64, 1, 80, -1, true},     {1, 77, 2, 64, -1, false},    {2, 130, 1, 80, 5, true},
      {1, 130, 1, 64, -1, true},    {1, 40, 1, 128, 66, false},   {2, 33, 1, 7, -1, true, 1},
      {1, 17, 2, 128, 5, false, 1}, {1, 70, 1, 20, -1, false, 3}, {0, 5, 1, 64, -1, false},
      {2, 5, 1, 64, 0, false},      {1, 0, 1, 16, 2, false},      {1, 9, 1, 33, -1, false, 1},
  };
  for (const Heads& h : heads)
    all.push_back(
        {"attention " + type + " " + std::to_string(h.length) + "x" + std::to_string(h.head_dim),
         [=] { return attention<T>(h); }});
  for (Odd odd :
       {Odd::qkv, Odd::image, Odd::position, Odd::part, Odd::head, Odd::head_dim, Odd::out})
    all.push_back({"attention " + type + ", odd " + std::to_string(static_cast<int>(odd)), [=] {
                     return attention<T>(
                         {2, 9, 2, odd == Odd::head_dim ? 20 : 16, -1, false, 8, odd});
                   }});
  all.push_back({"attention " + type + " steep",
                 [] { return attention<T>({1, 75, 1, 16, -1, true}, Scores::steep); }});
  if (!std::is_same_v<T, float16>)
    all.push_back({"attention " + type + " from -infinity",
                   [] { return attention<T>({1, 75, 1, 16, 2, false}, Scores::far); }});
}

}  // namespace

int main(int count, char** words) {
  std::vector<Case> cases;
  each_dtype([&](auto element, const char* name) { add_cases<decltype(element)>(cases, name); });
  return run_cases(cases, count, words);
}
