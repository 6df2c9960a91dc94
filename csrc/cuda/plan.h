#pragma once

// How ddpm_sample runs on a GPU: plain arithmetic on sizes, no CUDA.
//
// Regimes, for R rows of a head of width w, depth d:
//   persistent  P x Q CTAs, one on an SM, stay for all S steps. CTA (p, q) owns the rows
//               share(R, P, p) and the outputs share(w, Q, q) of every product. A product needs
//               whole rows, so there is a grid barrier after each, input and final layer among
//               them: 2 d + 2 a step.
//   tall        library products between fused kernels, for rows so many that passing them through
//               L2 costs more than the launches.
//
// Each CTA normalises its rows itself, which passes x, shift and scale (12 bytes a number) to all Q
// of them; or their owner does, for a barrier more each time, and 2 or 4 bytes a number pass
// (`normalise_once`).
// The plan with the smallest estimated time wins, among tall and those persistent ones that use at
// least 80 % of the SMs.
//
// Shares are even to one row and one output, which makes any number of SMs useful: 1024 outputs on
// 114 SMs are 9 or 8 a CTA. An m16 tile of which 9 rows count wastes tensor-core time, which is not
// what limits few rows; many rows have few column shares, of 16 outputs and more.
//
// Times are estimates, by the emulator's costs (docs/gpu_without_a_gpu.md). None was measured; they
// are there to choose by:
//   persistent step = (2 d + 2 or 3 d + 3) barriers + LayerNorms + rows through L2
//                     + max(products, streamed weights)
//   tall step       = launches + elementwise bytes + products in whole waves of tiles
//   both            + the modulation as one tall product, S R (3 d + 2) w^2 multiply-adds
// The floor counts each resource alone: weights once (or once a step, where shared memory can't
// hold them), multiply-adds at the peak, barriers.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cuda/ops.h"
#include "marfast/host_device.h"

namespace marfast::cuda {

// What the model knows of a GPU. Rates are what a good kernel reaches, a second.
struct GpuProfile {
  const char* name;
  int64_t sms;
  int64_t shared_bytes;  // of a block
  int64_t l2_bytes;
  double memory_rate;  // bytes
  double l2_rate;      // bytes
  double half_rate;    // tensor-core flops, bf16 and fp16
  double mma_share;    // of half_rate that mma.sync reaches
  double float_rate;   // flops outside tensor cores
  double barrier_time;
  double launch_time;  // of a kernel in a graph, until the next can begin
};

// From data sheets, scaled.
constexpr GpuProfile kGpuProfiles[] = {
    {"A100", 108, 163 << 10, 40 << 20, 1.40e12, 3.5e12, 2.5e14, 0.95, 1.6e13, 1.8e-6, 3.0e-6},
    {"H100 PCIe", 114, 227 << 10, 50 << 20, 1.80e12, 4.5e12, 6.0e14, 0.62, 4.1e13, 1.5e-6, 2.5e-6},
    {"H100 SXM", 132, 227 << 10, 50 << 20, 3.00e12, 5.5e12, 7.9e14, 0.62, 5.4e13, 1.5e-6, 2.5e-6},
    {"H200", 132, 227 << 10, 60 << 20, 4.30e12, 5.5e12, 7.9e14, 0.62, 5.4e13, 1.5e-6, 2.5e-6},
};

enum class Regime : int32_t { persistent = 0, tall = 1 };

struct HeadPlan : PersistentPlan {  // in the tall regime all 0
  Regime regime;
  int64_t shared_bytes;      // of a CTA
  int64_t chunk;             // steps whose modulation is computed at once
  int64_t modulation_bytes;  // of a chunk
  double utilisation;        // work over SMs x the most work that one has
  double bytes;              // of a sample, through memory and L2
  double flops;              // of a sample
  double barriers;           // of a sample
  double time;               // estimated, seconds
  double floor;              // seconds
};

MARFAST_HD constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
MARFAST_HD constexpr int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

// What of a product is one chain of additions; block sums are added in order.
MARFAST_HD constexpr int64_t product_block(DType dtype) { return dtype == DType::f32 ? 256 : 128; }
MARFAST_HD constexpr int64_t element_bytes(DType dtype) { return dtype == DType::f32 ? 4 : 2; }

// What a CTA keeps in shared memory, in this order. Rows are 16 bytes longer than their elements:
// neighbours start in other banks.
struct SharedLayout {
  int64_t pitch;  // of the tile, in elements
  int64_t weight_pitch;
  int64_t tile;     // bytes of [row_tile] rows: a product's input
  int64_t sums;     // of [blocks, row_tile, columns] float, or the final layer's outputs
  int64_t inputs;   // of [row_tile, C] float
  int64_t final;    // of the final layer's weights: a CTA's share of 2C rows
  int64_t weights;  // of one product: [columns] rows

  MARFAST_HD SharedLayout(const HeadShape& s, DType dtype, const PersistentPlan& plan) {
    const int64_t element = element_bytes(dtype), blocks = divide_up(s.width, product_block(dtype));
    pitch = weight_pitch = s.width + 16 / element;
    tile = plan.row_tile * pitch * element;
    const int64_t ends = divide_up(2 * s.channels, plan.column_groups);
    sums = round_up(blocks * plan.row_tile * (plan.columns > ends ? plan.columns : ends) * 4, 128);
    inputs = round_up(plan.row_tile * s.channels * 4, 128);
    final = ends * weight_pitch * element;
    weights = plan.columns * weight_pitch * element;
  }
  MARFAST_HD int64_t size(int64_t slots) const {
    return tile + sums + inputs + final + slots * weights;
  }
};

class Planner {
 public:
  Planner(const GpuProfile& gpu, const HeadShape& shape, DType dtype, int64_t rows, int64_t steps,
          int64_t modulation_budget)
      : gpu_(gpu), shape_(shape), dtype_(dtype), rows_(rows), steps_(steps) {
    width_ = shape.width;
    depth_ = shape.depth;
    outputs_ = 2 * shape.channels;
    const int64_t modulation = rows * (3 * depth_ + 2) * width_ * 4;  // of a step
    chunk_ = std::clamp<int64_t>(modulation_budget / std::max<int64_t>(1, modulation), 1, steps);
    modulation_bytes_ = chunk_ * modulation;
    peak_ = dtype == DType::f32 ? gpu.float_rate : gpu.half_rate;
    rate_ = dtype == DType::f32 ? gpu.float_rate * kFloatShare : gpu.half_rate;
    const double w = static_cast<double>(width_), r = static_cast<double>(rows);
    const double adaln = 2.0 * r * (3.0 * depth_ + 2.0) * w * w;  // flops of a step
    step_flops_ = 2.0 * r * (2.0 * depth_ * w * w + w * (outputs_ + shape.channels));
    // M is written once and read once; its product is tall in all chunks but the smallest.
    modulation_time_ = steps * std::max(adaln / rate_, 2.0 * modulation / gpu.memory_rate);
    adaln_flops_ = steps * adaln;
  }

  // `must_persist`: the best persistent one, however little it uses; tall where none fits.
  HeadPlan best(bool must_persist) const {
    HeadPlan best = tall();
    const int64_t most = dtype_ == DType::f32 ? kMostFloatRows : kMostHalfRows;
    if (rows_ > most && !must_persist) return best;
    const double enough = must_persist ? 0.0 : kEnough;
    double least = must_persist ? HUGE_VAL : best.time;
    const int64_t groups = std::min(rows_, gpu_.sms);
    for (int64_t p = 1; p <= groups; ++p) {
      for (int64_t tile = 8; tile <= 128; tile *= 2) {
        for (const bool once : {false, true}) {
          HeadPlan plan{};
          if (persistent(p, tile, once, &plan) && plan.utilisation >= enough && plan.time < least) {
            best = plan;
            least = plan.time;
          }
        }
        if (tile >= divide_up(rows_, p)) break;
      }
    }
    return best;
  }

  // False where it doesn't fit.
  bool persistent(int64_t row_groups, int64_t row_tile, bool once, HeadPlan* plan) const {
    const int64_t q = std::min(width_, gpu_.sms / row_groups);
    const int64_t columns = divide_up(width_, q), rows = divide_up(rows_, row_groups);
    HeadPlan& a = *plan;
    a = common(Regime::persistent);
    a.row_groups = row_groups;
    a.column_groups = q;
    a.row_tile = row_tile;
    a.normalise_once = once;
    a.columns = columns;
    const SharedLayout layout(shape_, dtype_, a);
    const int64_t products = 2 * depth_;
    const int64_t free = gpu_.shared_bytes - layout.size(0);
    if (free < 0) return false;
    const int64_t slots = std::min(products, free / layout.weights);
    // Unstaged, a lane reads a row of W of its own: as float32, 32 cache lines a load.
    if (dtype_ == DType::f32 && slots == 0) return false;
    a.stationary = slots == products ? products : std::max<int64_t>(0, slots - 1);
    a.staged = slots > 0;
    a.shared_bytes = layout.size(slots);
    a.utilisation = static_cast<double>(rows_ * width_) / (gpu_.sms * rows * columns);

    const double w = static_cast<double>(width_), ctas = static_cast<double>(row_groups * q);
    const double element = element_bytes(dtype_);
    const double through = depth_ * w *
                           (once ? ctas * rows * 2.0 * element + rows_ * (12.0 + element)
                                 : ctas * rows * (12.0 + element));
    // Weights that shared memory has no room for are read anew for each row tile.
    const int64_t tiles = divide_up(rows, row_tile);
    const double streamed =
        (products - a.stationary) * (a.staged ? 1 : tiles) * ctas * columns * w * element;
    const double rate = weight_rate();
    const int64_t padded_rows = dtype_ == DType::f32 ? rows : round_up(rows, 8);
    const int64_t padded_columns = dtype_ == DType::f32 ? columns : round_up(columns, 16);
    const double passes =
        static_cast<double>(tiles * (products + 2));  // input and final layer, too
    const int64_t chains = divide_up(width_, product_block(dtype_)) * row_tile * columns;
    const double products_time = dtype_ == DType::f32
                                     ? passes * divide_up(chains, kThreads) * kChainTime
                                     : 2.0 * products * padded_rows * padded_columns * w *
                                           gpu_.sms / (peak_ * gpu_.mma_share);
    const double barriers = (once ? 3.0 : 2.0) * (depth_ + 1.0);
    const bool near = modulation_bytes_ <= 0.8 * gpu_.l2_bytes;
    const double norms_time = (depth_ + 1) *
                              divide_up(once ? divide_up(rows_, row_groups * q) : rows, kWarps) *
                              (w / 32.0) * (near ? kNearTime : kFarTime);
    a.bytes += steps_ * (through + streamed);
    a.barriers = steps_ * barriers;
    a.time = modulation_time_ +
             steps_ * (barriers * gpu_.barrier_time + norms_time + passes * kPassTime +
                       through / gpu_.l2_rate + std::max(products_time, streamed / rate));
    return true;
  }

  // Per block LN + modulate, product, SiLU, product, gate + residual; per step input projection,
  // LN + modulate, product, update.
  HeadPlan tall() const {
    HeadPlan a = common(Regime::tall);
    const double w = static_cast<double>(width_), r = static_cast<double>(rows_);
    const double elementwise = depth_ * r * w * (16.0 + 7.0 * element_bytes(dtype_));
    double busy = 0.0;
    const double product = product_time(&busy), elements = elementwise / gpu_.l2_rate;
    a.utilisation = busy;
    a.bytes += steps_ * (elementwise + 2.0 * depth_ * w * w * element_bytes(dtype_));
    a.time = modulation_time_ +
             steps_ * ((5.0 * depth_ + 4.0) * gpu_.launch_time + elements + 2.0 * depth_ * product);
    return a;
  }

 private:
  static constexpr double kEnough = 0.8;
  // Of more rows the persistent kernel isn't chosen by an estimate.
  static constexpr int64_t kMostFloatRows = 16, kMostHalfRows = 64;
  static constexpr int64_t kThreads = 256, kWarps = 8;  // of a CTA; a warp normalises a row
  static constexpr double kNearTime = 0.04e-6;          // LayerNorm's time for 32 numbers
  static constexpr double kFarTime = 0.06e-6;           // where shift and scale come from memory
  static constexpr double kChainTime = 1.0e-6;          // float32: a chain of 256 of k
  static constexpr double kPassTime = 1.0e-6;  // a row tile's latency in a product: load, mma, fold
  static constexpr double kFloatShare = 0.55;  // of the peak, that our own products reach
  static constexpr double kFloatLatency = 5.5e-9;  // of one k in such a product

  HeadPlan common(Regime regime) const {
    HeadPlan a{};
    a.regime = regime;
    a.chunk = chunk_;
    a.modulation_bytes = modulation_bytes_;
    a.flops = adaln_flops_ + steps_ * step_flops_;
    a.bytes = 2.0 * modulation_bytes_ / chunk_ * steps_;
    a.floor = floor();
    return a;
  }

  double weight_bytes() const { return 2.0 * depth_ * width_ * width_ * element_bytes(dtype_); }
  // Of weights that are read again in each step.
  double weight_rate() const {
    return weight_bytes() <= 0.8 * gpu_.l2_bytes ? gpu_.l2_rate : gpu_.memory_rate;
  }

  double floor() const {
    const bool stay = weight_bytes() <= 0.9 * gpu_.sms * gpu_.shared_bytes;
    const double reads =
        stay ? weight_bytes() / gpu_.memory_rate : steps_ * weight_bytes() / weight_rate();
    const double flops = (adaln_flops_ + steps_ * step_flops_) / peak_;
    return std::max({reads, flops, steps_ * (2.0 * depth_ + 1.0) * gpu_.barrier_time});
  }

  // One product: float32 our own (linear_fp32.cuh), else the library's, which is taken to choose
  // the best of these tiles and splits of k.
  double product_time(double* busy) const {
    const double weights = width_ * width_ * element_bytes(dtype_) / weight_rate();
    if (dtype_ == DType::f32) {
      const int64_t padded = round_up(rows_, 32);
      *busy = static_cast<double>(rows_) / padded;
      return std::max({width_ * kFloatLatency, 2.0 * padded * width_ * width_ / rate_, weights});
    }
    constexpr int64_t kTiles[][2] = {{64, 64}, {64, 128}, {128, 128}, {128, 256}};
    double best = 0.0;
    for (const auto& tile : kTiles) {
      for (int64_t split = 1; split <= 8; split *= 2) {
        const int64_t tiles = divide_up(rows_, tile[0]) * divide_up(width_, tile[1]) * split;
        const int64_t waves = divide_up(tiles, gpu_.sms);
        // Small tiles read more for each product: 64 x 64 reaches half of the peak.
        const double reach = tile[0] * tile[1] / (tile[0] * tile[1] + 4096.0);
        const double work = 2.0 * tile[0] * tile[1] * width_ / split;
        const double time = waves * work * gpu_.sms / (rate_ * reach) +
                            (split > 1 ? 8.0 * rows_ * width_ * split / gpu_.l2_rate : 0.0);
        if (best == 0.0 || time < best) {
          best = time;
          *busy = static_cast<double>(tiles) / (waves * gpu_.sms);
        }
      }
    }
    return std::max(best, weights);
  }

  const GpuProfile gpu_;
  const HeadShape shape_;
  const DType dtype_;
  const int64_t rows_, steps_;
  int64_t width_, depth_, outputs_, chunk_, modulation_bytes_;
  double peak_, rate_, step_flops_, adaln_flops_, modulation_time_;
};

inline HeadPlan head_plan(const GpuProfile& gpu, const HeadShape& shape, DType dtype, int64_t rows,
                          int64_t steps, int64_t modulation_budget, bool persistent) {
  return Planner(gpu, shape, dtype, rows, steps, modulation_budget).best(persistent);
}

}  // namespace marfast::cuda
