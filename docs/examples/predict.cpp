#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <onnxruntime_cxx_api.h>

#include "gate/gate.h"

// Samples in [-1, 1] of a WAV file: 16-bit PCM, one channel, 16 kHz, on a little-endian machine.
std::vector<float> read_wav(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  char riff[12], name[4];
  uint32_t size;
  uint16_t format[8] = {};  // kind, channels, rate (2), bytes a second (2), bytes a frame, bits
  if (!file.read(riff, 12) || std::memcmp(riff, "RIFF", 4) || std::memcmp(riff + 8, "WAVE", 4))
    throw std::runtime_error(path + ": no WAV file");
  while (file.read(name, 4) && file.read(reinterpret_cast<char*>(&size), 4)) {
    if (!std::memcmp(name, "data", 4)) {
      if (format[0] != 1 || format[1] != 1 || format[2] != 16000 || format[7] != 16)
        throw std::runtime_error(path + ": not 16-bit PCM, one channel, 16 kHz: convert it");
      std::vector<char> bytes(std::istreambuf_iterator<char>(file), {});
      if (bytes.size() < size) throw std::runtime_error(path + ": cut short: copy or record it again");
      std::vector<float> samples(size / 2);
      for (size_t i = 0; i < size / 2; i++) {
        int16_t sample;
        std::memcpy(&sample, &bytes[2 * i], 2);
        samples[i] = sample / 32768.0f;
      }
      return samples;
    }
    size_t known = std::memcmp(name, "fmt ", 4) ? 0 : std::min<size_t>(size, sizeof format);
    file.read(reinterpret_cast<char*>(format), known);
    file.seekg(size + size % 2 - known, std::ios::cur);
  }
  throw std::runtime_error(path + ": no audio in it");
}

// Without the frames of 25 ms at both ends that are 40 dB below the loudest one: as students learn.
std::vector<float> trim_silence(const std::vector<float>& samples) {
  const size_t frame = 400;
  std::vector<float> energies;
  for (size_t i = 0; i < samples.size(); i++) {
    if (i % frame == 0) energies.push_back(0.0f);
    energies.back() += samples[i] * samples[i];
  }
  if (energies.empty()) return samples;
  const float floor = *std::max_element(energies.begin(), energies.end()) * 1e-4f;
  auto loud = [floor](float energy) { return energy >= floor; };
  const size_t first = std::find_if(energies.begin(), energies.end(), loud) - energies.begin();
  const size_t last = energies.rend() - std::find_if(energies.rbegin(), energies.rend(), loud);
  return std::vector<float>(samples.begin() + first * frame,
                            samples.begin() + std::min(last * frame, samples.size()));
}

// A list that the model carries as metadata: ["angry", "happy"]; this reads names without escaped letters.
std::vector<std::string> read_list(const Ort::Session& session, const char* key) {
  Ort::AllocatorWithDefaultOptions allocator;
  auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated(key, allocator);
  std::vector<std::string> names;
  for (const char* start = text ? std::strchr(text.get(), '"') : nullptr; start; start = std::strchr(start, '"')) {
    const char* end = std::strchr(++start, '"');
    if (!end) break;
    names.emplace_back(start, end);
    start = end + 1;
  }
  return names;
}

// Lowest and highest value of each dimension: [[1.0, 7.0], [-1.0, 1.0]].
std::vector<float> read_ranges(const Ort::Session& session) {
  Ort::AllocatorWithDefaultOptions allocator;
  auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated("ranges", allocator);
  std::vector<float> ends;
  for (const char* at = text ? text.get() : ""; *(at += std::strspn(at, "[], "));) {
    char* end;
    ends.push_back(std::strtof(at, &end));
    if (end == at) throw std::runtime_error("the model's ranges cannot be read: export it again");
    at = end;
  }
  return ends;
}

std::vector<std::string> split(const std::string& text, char by) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, by);) parts.push_back(part);
  return parts;
}

// What is shown: a name, and the model's emotions whose probabilities are summed.
struct Shown {
  std::string name;
  std::vector<size_t> members;
};

size_t place_of(const std::vector<std::string>& labels, const std::string& name) {
  const size_t place = std::find(labels.begin(), labels.end(), name) - labels.begin();
  if (place == labels.size()) throw std::runtime_error("there is no emotion '" + name + "' in this model");
  return place;
}

// All emotions, or with "angry,sad" these alone, with "negative=angry+sad" these as one.
std::vector<Shown> view_of(const std::vector<std::string>& labels, const std::string& subset,
                           const std::vector<std::string>& groups) {
  std::vector<std::string> place = labels;  // under which name each emotion is shown; empty: left out
  if (!subset.empty()) {
    place.assign(labels.size(), "");
    for (const auto& name : split(subset, ',')) place[place_of(labels, name)] = name;
  }
  for (const auto& group : groups) {
    const size_t equals = group.find('=');
    if (!equals || equals == std::string::npos) throw std::runtime_error(group + ": write --group NAME=A+B");
    for (const auto& name : split(group.substr(equals + 1), '+'))
      place[place_of(labels, name)] = group.substr(0, equals);
  }
  std::vector<Shown> shown;
  for (size_t k = 0; k < place.size(); k++) {
    if (place[k].empty()) continue;
    auto same = [&](const Shown& one) { return one.name == place[k]; };
    auto found = std::find_if(shown.begin(), shown.end(), same);
    if (found == shown.end()) found = shown.insert(shown.end(), {place[k], {}});
    found->members.push_back(k);
  }
  return shown;
}

int main(int argc, char** argv) try {
  std::string model, subset;
  std::vector<std::string> groups, files;
  for (int i = 1; i < argc; i++) {
    const std::string word = argv[i];
    if ((word == "--labels" || word == "--group") && i + 1 < argc) {
      if (word == "--labels") subset = argv[++i];
      else groups.push_back(argv[++i]);
    } else if (model.empty()) model = word;
    else files.push_back(word);
  }
  if (files.empty())
    throw std::runtime_error("usage: predict model.int8.onnx [--labels A,B] [--group NAME=A+B] a.wav b.wav");
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR);
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
  // ORTCHAR_T is wide on Windows.
  Ort::Session session(env, std::basic_string<ORTCHAR_T>(model.begin(), model.end()).c_str(), options);
  const auto labels = read_list(session, "labels"), dimensions = read_list(session, "dimensions");
  const auto ends = read_ranges(session);
  if ((labels.empty() && dimensions.empty()) || ends.size() != 2 * dimensions.size())
    throw std::runtime_error("the model has no labels, or no ranges: was it made by mifuse export?");
  const auto view = view_of(labels, subset, groups);
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const char* inputs[] = {"samples"};
  std::vector<const char*> outputs;
  if (!labels.empty()) outputs.push_back("probs");
  if (!dimensions.empty()) outputs.push_back("dimensions");
  for (const auto& file : files) {
    auto samples = trim_silence(read_wav(file));
    if (mifuse::speech_share(samples) < mifuse::NEEDED) {
      std::printf("%s no speech\n", file.c_str());
      continue;
    }
    samples.resize(std::max<size_t>(samples.size(), 1600), 0.0f);  // 0.1 s, so that any graph has a frame
    std::array<int64_t, 2> shape = {1, static_cast<int64_t>(samples.size())};
    auto input = Ort::Value::CreateTensor<float>(memory, samples.data(), samples.size(), shape.data(), 2);
    auto found = session.Run(Ort::RunOptions(), inputs, &input, 1, outputs.data(), outputs.size());
    std::printf("%s", file.c_str());
    const float* probs = found.front().GetTensorData<float>();
    float whole = 0.0f;
    for (const auto& one : view)
      for (size_t k : one.members) whole += probs[k];
    for (const auto& one : view) {
      float sum = 0.0f;
      for (size_t k : one.members) sum += probs[k];
      std::printf(" %s %.6f", one.name.c_str(), whole > 0 ? sum / whole : 1.0f / view.size());
    }
    const float* values = found.back().GetTensorData<float>();
    for (size_t v = 0; v < dimensions.size(); v++)
      std::printf(" %s %.6g", dimensions[v].c_str(), ends[2 * v] + values[v] * (ends[2 * v + 1] - ends[2 * v]));
    std::printf("\n");
  }
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
