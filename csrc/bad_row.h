// How a kernel tells Python which row it refuses. The text of an exception is all that crosses torch's dispatcher, so
// it carries the fields; bertft/ops/rows.py reads them, and the sentence for the user is written by
// bertft.errors.BadRow.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>

namespace bertft::binding {

// side: x or y; layer: -1 where the op takes one layer only.
[[noreturn]] inline void raise_bad_row(const char* op, const char* side, int64_t row, int64_t layer, bool no_norm) {
  throw std::runtime_error("bertft bad row: op=" + std::string(op) + " side=" + side + " row=" + std::to_string(row) +
                           " layer=" + std::to_string(layer) + " reason=" + (no_norm ? "no_norm" : "not_finite"));
}

}  // namespace bertft::binding
