// Whether somebody speaks: the gate of mifuse_runtime/vad.py, in C++17, for 16 kHz. `weights.h` has its numbers.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <complex>
#include <deque>
#include <vector>

#include "weights.h"

namespace mifuse {

constexpr float NEEDED = 0.1f, LEVEL = -60.0f, VOICE = 0.5f;  // bundle.json's stream.speech, .level and .voice
constexpr size_t FRAME = 512, BINS = 256, BANDS = 20, CONTEXT = 16;
constexpr double PI = 3.14159265358979323846;
using Row = std::vector<double>;

inline double dot(const Row& one, const Row& other) {
  double sum = 0;
  for (size_t i = 0; i < one.size(); i++) sum += one[i] * other[i];
  return sum;
}

// Fast Fourier transform in place; the size is a power of two.
inline void transform(std::vector<std::complex<double>>& values) {
  const size_t size = values.size();
  for (size_t i = 1, j = 0; i < size; i++) {
    size_t bit = size >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) std::swap(values[i], values[j]);
  }
  for (size_t width = 2; width <= size; width *= 2)
    for (size_t k = 0; k < width / 2; k++) {
      const auto turn = std::polar(1.0, -2 * PI * k / width);
      for (size_t at = k; at < size; at += width) {
        const auto part = values[at + width / 2] * turn;
        values[at + width / 2] = values[at] - part;
        values[at] += part;
      }
    }
}

// Power of the first 256 frequencies of a frame of 512 samples, under a Hann window.
inline Row power_of(const float* frame) {
  std::vector<std::complex<double>> values(FRAME);
  for (size_t i = 0; i < FRAME; i++) values[i] = frame[i] * (0.5 - 0.5 * std::cos(2 * PI * i / (FRAME - 1)));
  transform(values);
  Row power(BINS);
  for (size_t i = 0; i < BINS; i++) power[i] = std::norm(values[i]) / FRAME;
  return power;
}

// Mel triangles of sum 1.
inline const std::vector<Row>& filters() {
  static const std::vector<Row> made = [] {
    auto mel = [](double hertz) { return 2595 * std::log10(1 + hertz / 700); };
    auto edge = [&](size_t i) {
      return 700 * (std::pow(10, (mel(80) + (mel(7600) - mel(80)) * i / (BANDS + 1)) / 2595) - 1);
    };
    std::vector<Row> all(BANDS, Row(BINS));
    for (size_t band = 0; band < BANDS; band++) {
      double sum = 0;
      for (size_t bin = 0; bin < BINS; bin++) {
        const double hertz = bin * 31.25, low = edge(band), centre = edge(band + 1), high = edge(band + 2);
        const double height = std::min((hertz - low) / (centre - low), (high - hertz) / (high - centre));
        sum += all[band][bin] = std::max(0.0, height);
      }
      for (double& value : all[band]) value /= sum;
    }
    return all;
  }();
  return made;
}

// The network on one frame after the other.
class Gate {
 public:
  bool is_speech(const float* frame) {
    double energy = 0;
    for (size_t i = 0; i < FRAME; i++) energy += frame[i] * frame[i];
    const bool loud = 10 * std::log10(energy / FRAME + 1e-12) >= LEVEL;
    const Row inputs = look(frame);  // also of quiet frames: the next ones look back at it
    double sum = OUTPUT_BIAS;
    for (size_t unit = 0; unit < UNITS; unit++) {
      double value = HIDDEN_BIAS[unit];
      for (size_t i = 0; i < INPUTS; i++) value += inputs[i] * HIDDEN[i][unit];
      sum += std::max(0.0, value) * OUTPUT[unit];
    }
    const bool before = passed_;
    passed_ = loud && sum >= std::log(VOICE / (1 - VOICE));
    return before && passed_;  // a voice lasts longer than a click: two frames or more
  }

 private:
  Row look(const float* frame) {
    const Row power = power_of(frame);
    Row now;
    for (const Row& filter : filters()) now.push_back(std::log(dot(filter, power) + 1e-9));
    for (size_t from = 8; from < BINS; from *= 2) {  // flatness by octaves
      double logs = 0, sum = 0;
      for (size_t bin = from; bin < 2 * from; bin++) logs += std::log(power[bin] + 1e-12), sum += power[bin] + 1e-12;
      now.push_back(logs / from - std::log(sum / from));
    }
    Row fine(power.begin() + 3, power.begin() + 131);
    for (double& value : fine) value = std::sqrt(value);
    const double size = std::sqrt(dot(fine, fine)) + 1e-7;
    for (double& value : fine) value /= size;
    if (fine_.empty()) fine_.assign(6, fine);
    for (size_t lag : {1, 3, 6}) now.push_back(dot(fine, fine_[6 - lag]));
    fine_.pop_front(), fine_.push_back(fine);
    if (past_.empty()) past_.assign(CONTEXT, now);
    past_.pop_front(), past_.push_back(now);
    Row mean(now.size()), spread(BANDS);
    for (const Row& row : past_)
      for (size_t i = 0; i < row.size(); i++) mean[i] += row[i] / CONTEXT;
    for (const Row& row : past_)
      for (size_t i = 0; i < BANDS; i++) spread[i] += row[i] * row[i] / CONTEXT;
    for (size_t i = 0; i < BANDS; i++) spread[i] = std::sqrt(std::max(0.0, spread[i] - mean[i] * mean[i]));
    double middle = 0;
    for (size_t i = 0; i < BANDS; i++) middle += mean[i] / BANDS;
    for (size_t i = 0; i < BANDS; i++) now[i] -= middle, mean[i] -= middle;
    now.insert(now.end(), mean.begin(), mean.end());
    now.insert(now.end(), spread.begin(), spread.end());
    return now;
  }

  bool passed_ = false;
  std::deque<Row> fine_, past_;
};

// Share of the frames of a clip that are speech; what is less than a frame counts as one.
inline float speech_share(std::vector<float> samples) {
  samples.resize(std::max(samples.size(), FRAME), 0.0f);
  Gate gate;
  const size_t frames = samples.size() / FRAME;
  size_t speech = 0;
  for (size_t i = 0; i < frames; i++) speech += gate.is_speech(&samples[i * FRAME]);
  return static_cast<float>(speech) / frames;
}

}  // namespace mifuse
