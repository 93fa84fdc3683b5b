// mma_layouts.h -- which lane and register hold which element of a tensor-core fragment (PTX manual, "Matrix
// Fragments for mma"). test_instructions.py compares each with CUTLASS's thread-value tables.
//
// Values are counted one element at a time: a register of two 16-bit values is two values, low half first.
#pragma once

namespace executor {

struct Place {
  int row, column;
};

struct MmaLayout {
  int M, N, K;                       // A is M x K, B is K x N, C and D are M x N
  int a_values, b_values, c_values;  // per lane
  Place (*a)(int lane, int value);   // row of M, column of K
  Place (*b)(int lane, int value);   // row of K, column of N
  Place (*c)(int lane, int value);   // row of M, column of N
};

namespace layouts {

inline int group(int lane) { return lane / 4; }
inline int quad(int lane) { return lane % 4; }

inline Place c_16x8(int lane, int v) { return {group(lane) + 8 * (v / 2), 2 * quad(lane) + v % 2}; }

inline Place a_m16n8k8_tf32(int lane, int v) { return {group(lane) + 8 * (v % 2), quad(lane) + 4 * (v / 2)}; }
inline Place b_m16n8k8_tf32(int lane, int v) { return {quad(lane) + 4 * v, group(lane)}; }

inline Place a_m16n8k16(int lane, int v) {
  return {group(lane) + 8 * (v / 2 % 2), 2 * quad(lane) + v % 2 + 8 * (v / 4)};
}
inline Place b_m16n8k16(int lane, int v) { return {2 * quad(lane) + v % 2 + 8 * (v / 2), group(lane)}; }

inline Place a_m8n8k4_f64(int lane, int) { return {group(lane), quad(lane)}; }
inline Place b_m8n8k4_f64(int lane, int) { return {quad(lane), group(lane)}; }
inline Place c_m8n8k4_f64(int lane, int v) { return {group(lane), 2 * quad(lane) + v}; }

}  // namespace layouts

inline constexpr MmaLayout kM16N8K8Tf32 = {
    16, 8, 8, 4, 2, 4, layouts::a_m16n8k8_tf32, layouts::b_m16n8k8_tf32, layouts::c_16x8};
inline constexpr MmaLayout kM16N8K16 = {16, 8, 16, 8, 4, 4, layouts::a_m16n8k16, layouts::b_m16n8k16, layouts::c_16x8};
inline constexpr MmaLayout kM8N8K4F64 = {
    8, 8, 4, 1, 1, 2, layouts::a_m8n8k4_f64, layouts::b_m8n8k4_f64, layouts::c_m8n8k4_f64};

}  // namespace executor
