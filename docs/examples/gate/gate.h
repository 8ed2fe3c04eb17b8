// Whether somebody speaks: the gate of mifuse_runtime/vad.py, in C++17, for 16 kHz. `weights.h` has its numbers.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <complex>
#include <deque>
#include <iterator>
#include <vector>

#include "weights.h"

namespace mifuse {

constexpr float NEEDED = 0.1f, LEVEL = -60.0f, VOICE = 0.5f;  // bundle.json's stream.speech, .level and .voice
constexpr size_t FRAME = 512, HALF = 256, BINS = 129, BANDS = 20, CONTEXT = 16;
constexpr size_t FINE = 48, GROUP = 6, LAGS[] = {1, 3, 6};  // single bins, of which changes are averaged; frames
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

// Power of every second frequency of a frame of 512 samples, under a Hann window: its halves are added first.
inline Row power_of(const float* frame) {
  auto windowed = [&](size_t i) { return frame[i] * (0.5 - 0.5 * std::cos(2 * PI * i / FRAME)) / HALF; };
  std::vector<std::complex<double>> values(HALF);
  for (size_t i = 0; i < HALF; i++) values[i] = windowed(i) + windowed(i + HALF);
  transform(values);
  Row power(BINS);
  for (size_t i = 0; i < BINS; i++) power[i] = std::norm(values[i]);
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
        const double hertz = bin * 62.5, low = edge(band), centre = edge(band + 1), high = edge(band + 2);
        const double height = std::min((hertz - low) / (centre - low), (high - hertz) / (high - centre));
        sum += all[band][bin] = std::max(0.0, height);
      }
      for (double& value : all[band]) value /= sum;
    }
    return all;
  }();
  return made;
}

// Sums of inputs by their rows of weights, over a bias, where above 0.
template <size_t INPUTS, size_t UNITS>
Row layer(const Row& inputs, const float (&rows)[INPUTS][UNITS], const float (&bias)[UNITS]) {
  Row sums(bias, bias + UNITS);
  for (size_t i = 0; i < INPUTS; i++)
    for (size_t unit = 0; unit < UNITS; unit++) sums[unit] += inputs[i] * rows[i][unit];
  for (double& sum : sums) sum = std::max(0.0, sum);
  return sums;
}

// The network on one frame after the other.
class Gate {
 public:
  bool is_speech(const float* frame) {
    double energy = 0;
    for (size_t i = 0; i < FRAME; i++) energy += frame[i] * frame[i];
    const bool loud = 10 * std::log10(energy / FRAME + 1e-12) >= LEVEL;
    const double odds = look(frame);  // also of quiet frames: the next ones look back at it
    const bool before = passed_;
    passed_ = loud && odds >= std::log(VOICE / (1 - VOICE));
    return before && passed_;  // a voice lasts longer than a click: two frames or more
  }

 private:
  double look(const float* frame) {
    const Row power = power_of(frame);
    Row now(power.begin() + 1, power.begin() + 1 + FINE);
    for (const Row& filter : filters()) now.push_back(dot(filter, power));
    for (double& value : now) value = std::log(value + 1e-9);
    if (past_.empty()) past_.assign(6, now);
    Row inputs = now;
    for (size_t lag : LAGS) {  // by how much it differs from some frames before: held notes stay as they are
      Row changes(FINE / GROUP, 0.0);
      for (size_t i = 0; i < now.size(); i++) {
        const double change = std::abs(now[i] - past_[6 - lag][i]);
        if (i < FINE) changes[i / GROUP] += change / GROUP;
        else changes.push_back(change);
      }
      inputs.insert(inputs.end(), changes.begin(), changes.end());
    }
    past_.pop_front(), past_.push_back(now);
    Row hidden = layer(inputs, HIDDEN, HIDDEN_BIAS);
    if (hidden_.empty()) hidden_.assign(CONTEXT, hidden);
    hidden_.pop_front(), hidden_.push_back(hidden);
    Row mean(hidden.size());
    for (const Row& row : hidden_)
      for (size_t i = 0; i < row.size(); i++) mean[i] += row[i] / CONTEXT;
    hidden.insert(hidden.end(), mean.begin(), mean.end());
    return dot(layer(hidden, SECOND, SECOND_BIAS), Row(std::begin(OUTPUT), std::end(OUTPUT))) + OUTPUT_BIAS;
  }

  bool passed_ = false;
  std::deque<Row> past_, hidden_;
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
