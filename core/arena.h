// Memory in large pages that is handed out part by part and freed as a whole.
#pragma once

#include <cstdint>

namespace trit {

class Arena {
 public:
  // Room for `bytes` in large pages where the system gives them. Throws std::bad_alloc.
  explicit Arena(int64_t bytes);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  int64_t bytes() const { return bytes_; }
  uint8_t* take(int64_t bytes);  // the next part, at a multiple of 64

 private:
  uint8_t* memory_ = nullptr;
  int64_t bytes_ = 0;
  int64_t taken_ = 0;
};

}  // namespace trit
