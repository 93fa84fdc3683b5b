// Parallel loops over torch's own thread pool, without any torch header.
//
// The binding passes torch's parallel_for as a function pointer in a `Pool`, so that kernel files are plain C++.
#pragma once
#include <atomic>
#include <cstdint>

namespace bertft {

struct Pool {
  using Body = void (*)(int64_t begin, int64_t end, void* context);
  int threads;  // torch.get_num_threads() at the time of the call
  void (*run)(int64_t begin, int64_t end, int64_t grain, Body body, void* context);
};

// Calls f(worker, task) once for every task in 0..tasks-1; worker < pool.threads names the scratch memory to use.
// Idle workers take the next task, so which worker runs a task varies from call to call: write results by task,
// never by worker, and reduce them in the order of tasks. f must not throw. Runs inline when nested.
template <class F>
void parallel_tasks(const Pool& pool, int64_t tasks, const F& f) {
  struct Shared {
    const F& f;
    std::atomic<int64_t> next;
    int64_t tasks;
  } shared{f, {0}, tasks};
  const int64_t workers = tasks < pool.threads ? tasks : pool.threads;
  pool.run(
      0, workers, 1,
      [](int64_t begin, int64_t end, void* context) {
        auto& s = *static_cast<Shared*>(context);
        for (int64_t worker = begin; worker < end; ++worker)
          for (int64_t task; (task = s.next.fetch_add(1, std::memory_order_relaxed)) < s.tasks;) s.f(int(worker), task);
      },
      &shared);
}

}  // namespace bertft
