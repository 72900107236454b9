// Tasks that workers take one after the other, so that what one task has prepared serves the next of the same worker.
//
// How many threads a session has is not known here, only how many the machine has: on fewer, the first worker takes all
// tasks, and nothing is prepared twice.
#ifndef MULSHIFT_SRC_QUEUE_H
#define MULSHIFT_SRC_QUEUE_H

#include <atomic>
#include <cstddef>

#include "tensor.h"

namespace mulshift {

class Queue {
 public:
  explicit Queue(size_t count) : count_(count) {}

  // The next task; false when there is none left.
  bool take(size_t* task) {
    *task = next_.fetch_add(1, std::memory_order_relaxed);
    return *task < count_;
  }

 private:
  const size_t count_;
  std::atomic<size_t> next_{0};
};

// Runs worker(job, queue) on up to as many threads as there are; `job` is a Job.
template <class Job>
void run_queue(const Parallel& parallel, size_t tasks, void (*worker)(Job& job, Queue& queue), Job* job) {
  struct Context {
    Queue queue;
    void (*worker)(Job&, Queue&);
    Job* job;
  };
  Context context = {Queue(tasks), worker, job};
  const size_t threads = parallel.threads < 1 ? 1 : static_cast<size_t>(parallel.threads);
  parallel.run(
      parallel.self, threads < tasks ? threads : tasks,
      [](void* data, size_t) {
        Context& c = *static_cast<Context*>(data);
        c.worker(*c.job, c.queue);
      },
      &context);
}

}  // namespace mulshift

#endif
