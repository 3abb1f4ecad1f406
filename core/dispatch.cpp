#include "dispatch.h"

#include <stdexcept>

#if defined(TRIT_X86)
#include <cpuid.h>
#endif
#if defined(TRIT_X86) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace trit {
namespace {

#if defined(TRIT_X86)

// Also asks the operating system, through xgetbv, whether it saves the registers.
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

bool has_avx2() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
  return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

[[maybe_unused]] bool has_avxvnni() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 4));
}

// The processor's tiles, and the system's leave to use them, which is for the whole process and for
// threads that it starts afterwards too.
[[maybe_unused]] bool has_amx() {
#if defined(__linux__)
  constexpr unsigned kTile = 1u << 24;
  constexpr unsigned kInt8 = 1u << 25;
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;               // XFEATURE_XTILEDATA
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  static const bool has = has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kTile) &&
                          (d & kInt8) &&
                          syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return has;
#else
  return false;
#endif
}

#endif

}  // namespace

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> tables;
#if defined(TRIT_WITH_AMX)
  if (has_amx()) tables.push_back(&amx::kKernels);
#endif
#if defined(TRIT_WITH_AVX512)
  if (has_avx512()) tables.push_back(&avx512::kKernels);
#endif
#if defined(TRIT_WITH_AVXVNNI)
  if (has_avxvnni()) tables.push_back(&avxvnni::kKernels);
#endif
#if defined(TRIT_WITH_AVX2)
  if (has_avx2()) tables.push_back(&avx2::kKernels);
#endif
#if defined(TRIT_WITH_SCALAR)
  tables.push_back(&scalar::kKernels);
#endif
  return tables;
}

const Kernels& choose_kernels(const std::string& isa) {
  const std::vector<const Kernels*> tables = available_kernels();
  if (tables.empty()) throw std::runtime_error("compiled for no instruction set of this machine");
  if (isa.empty()) return *tables.front();
  std::string names;
  for (const Kernels* table : tables) {
    if (isa == table->isa) return *table;
    names += (names.empty() ? "" : ", ") + std::string(table->isa);
  }
  throw std::invalid_argument("TRIT_ISA '" + isa + "' is not one this machine has: " + names);
}

const Format* find_format(const Kernels& kernels, const std::string& name) {
  for (int i = 0; i < kernels.formats->count; ++i) {
    if (name == kernels.formats->formats[i]->name) return kernels.formats->formats[i];
  }
  return nullptr;
}

}  // namespace trit
