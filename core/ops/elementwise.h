// Norms, activations, the rotary embedding and other functions of single values.
#pragma once

#include "isa/isa.h"
#include "kernels.h"

namespace trit::TRIT_ISA {

// e^x by 2^n · p(r), |r| ≤ ln 2 / 2; the polynomial is that of Cephes' expf (about 1 ulp).
// Below −87 the result is 0 (−inf included), above 88 it stays at e^88.
inline Floats exp(Floats x) {
  const Floats floor = broadcast(-87.0f);
  const Floats clamped = min(max(x, floor), broadcast(88.0f));
  const Ints n = round_to_ints(clamped * broadcast(1.44269504f));
  const Floats whole = to_floats(n);
  Floats r = fnma(whole, broadcast(0.693359375f), clamped);
  r = fnma(whole, broadcast(-2.12194440e-4f), r);
  Floats p = broadcast(1.9875691500e-4f);
  p = fma(p, r, broadcast(1.3981999507e-3f));
  p = fma(p, r, broadcast(8.3334519073e-3f));
  p = fma(p, r, broadcast(4.1665795894e-2f));
  p = fma(p, r, broadcast(1.6666665459e-1f));
  p = fma(p, r, broadcast(5.0000001201e-1f));
  const Floats result = fma(p, r * r, r + broadcast(1.0f)) * power_of_two(n);
  return select_less(x, floor, broadcast(0.0f), result);
}

inline Floats sigmoid(Floats x) {
  const Floats one = broadcast(1.0f);
  return one / (one + exp(broadcast(0.0f) - x));
}

inline Floats tanh(Floats x) {  // 2 · sigmoid(2x) − 1
  return fma(broadcast(2.0f), sigmoid(x + x), broadcast(-1.0f));
}

inline Floats activate_one(Activation kind, Floats x) {
  if (kind == Activation::kSilu) return x * sigmoid(x);
  if (kind == Activation::kRelu2) {
    const Floats positive = max(x, broadcast(0.0f));
    return positive * positive;
  }
  // gelu, tanh form: x / 2 · (1 + tanh(u)) = x · sigmoid(2u), u = √(2/π) (x + 0.044715 x³)
  const Floats cubic = fma(broadcast(0.044715f) * x * x, x, x);
  return x * sigmoid(broadcast(1.5957691216f) * cubic);
}

// Calls f(load, count) for sixteen values at a time; the last may be partial.
template <typename F>
inline void for_each(int64_t n, float* out, F f) {
  for (int64_t i = 0; i < n; i += 16) {
    const int count = n - i < 16 ? static_cast<int>(n - i) : 16;
    store_first(out + i, f(i, count), count);
  }
}

inline void rms_norm(const float* x, const float* weight, float eps, int n, float* out) {
  Floats squares = broadcast(0.0f);
  for (int i = 0; i < n; i += 16) {
    const Floats v = load_first(x + i, n - i < 16 ? n - i : 16);
    squares = fma(v, v, squares);
  }
  const float mean = reduce_add(squares) / static_cast<float>(n);
  const Floats factor = broadcast(1.0f / __builtin_sqrtf(mean + eps));
  for_each(n, out, [&](int64_t i, int count) {
    return load_first(x + i, count) * factor * load_first(weight + i, count);
  });
}

inline void add(const float* x, int64_t n, float* inout) {
  for_each(n, inout, [&](int64_t i, int count) {
    return load_first(inout + i, count) + load_first(x + i, count);
  });
}

inline void scale(float factor, int64_t n, float* inout) {
  for_each(n, inout,
           [&](int64_t i, int count) { return load_first(inout + i, count) * broadcast(factor); });
}

inline void activate_gated(Activation kind, const float* gate, const float* up, int64_t n,
                           float* out) {
  for_each(n, out, [&](int64_t i, int count) {
    return activate_one(kind, load_first(gate + i, count)) * load_first(up + i, count);
  });
}

inline void activate(Activation kind, int64_t n, float* inout) {
  for_each(n, inout,
           [&](int64_t i, int count) { return activate_one(kind, load_first(inout + i, count)); });
}

inline void soft_cap(float cap, int64_t n, float* inout) {
  const Floats inverse = broadcast(1.0f / cap);
  for_each(n, inout, [&](int64_t i, int count) {
    return broadcast(cap) * tanh(load_first(inout + i, count) * inverse);
  });
}

inline void rope(const float* cos, const float* sin, int pairs, bool adjacent, float* head) {
  for (int i = 0; i < pairs; ++i) {
    float& a = adjacent ? head[2 * i] : head[i];
    float& b = adjacent ? head[2 * i + 1] : head[i + pairs];
    const float x = a;
    const float y = b;
    a = x * cos[i] - y * sin[i];
    b = x * sin[i] + y * cos[i];
  }
}

}  // namespace trit::TRIT_ISA
