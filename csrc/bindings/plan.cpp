// The GPU's plan (cuda/plan.h): arithmetic, which needs no GPU.

#include "cuda/plan.h"

#include <pybind11/pybind11.h>

#include "bindings/modules.h"
#include "bindings/wire.h"

namespace marfast {
namespace cuda {

template <class Visit>
void fields(GpuProfile& a, Visit visit) {
  visit(FIELD(name));
  visit(FIELD(sms));
  visit(FIELD(shared_bytes));
  visit(FIELD(l2_bytes));
  visit(FIELD(memory_rate));
  visit(FIELD(l2_rate));
  visit(FIELD(half_rate));
  visit(FIELD(mma_share));
  visit(FIELD(float_rate));
  visit(FIELD(barrier_time));
  visit(FIELD(launch_time));
}

template <class Visit>
void fields(HeadPlan& a, Visit visit) {
  const char* regime = a.regime == Regime::persistent ? "persistent" : "tall";
  visit("regime", regime);
  fields(static_cast<PersistentPlan&>(a), visit);
  visit(FIELD(shared_bytes));
  visit(FIELD(chunk));
  visit(FIELD(modulation_bytes));
  visit(FIELD(utilisation));
  visit(FIELD(bytes));
  visit(FIELD(flops));
  visit(FIELD(barriers));
  visit(FIELD(time));
  visit(FIELD(floor));
}

}  // namespace cuda

using wire::Given;

void def_plan(pybind11::module_& m) {
  pybind11::list profiles;
  for (const cuda::GpuProfile& gpu : cuda::kGpuProfiles) profiles.append(wire::record_of(gpu));
  m.attr("gpu_profiles") = profiles;
  wire::def(m, "head_plan", [](Given& given) {
    struct {
      cuda::GpuProfile gpu;
      HeadShape shape;
      DType dtype;
      int64_t rows, steps, modulation_budget;
      bool persistent;
    } a{};
    given.record(FIELD(gpu));
    given.record(FIELD(shape));
    given.value(FIELD(dtype));
    given.value(FIELD(rows));
    given.value(FIELD(steps));
    given.value(FIELD(modulation_budget));
    given.value(FIELD(persistent));
    given.finish();
    given.expect(a.gpu.sms > 0, "gpu", "has no multiprocessors");
    return wire::record_of(cuda::head_plan(a.gpu, a.shape, a.dtype, a.rows, a.steps,
                                           a.modulation_budget, a.persistent));
  });
}

}  // namespace marfast
