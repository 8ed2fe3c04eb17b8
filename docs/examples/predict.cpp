#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
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

// The model carries its labels as metadata: ["angry", "happy"]; this reads those without escaped letters.
std::vector<std::string> read_labels(const Ort::Session& session) {
  Ort::AllocatorWithDefaultOptions allocator;
  auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated("labels", allocator);
  if (!text) throw std::runtime_error("the model has no labels: was it made by mifuse export?");
  std::vector<std::string> labels;
  for (const char* start = std::strchr(text.get(), '"'); start; start = std::strchr(start, '"')) {
    const char* end = std::strchr(++start, '"');
    if (!end) break;
    labels.emplace_back(start, end);
    start = end + 1;
  }
  return labels;
}

int main(int argc, char** argv) try {
  if (argc < 3) throw std::runtime_error("usage: predict model.int8.onnx a.wav b.wav");
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR);
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
  std::string model = argv[1];
  // ORTCHAR_T is wide on Windows.
  Ort::Session session(env, std::basic_string<ORTCHAR_T>(model.begin(), model.end()).c_str(), options);
  auto labels = read_labels(session);
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const char* inputs[] = {"samples"};
  const char* outputs[] = {"probs"};
  for (int i = 2; i < argc; i++) {
    auto samples = trim_silence(read_wav(argv[i]));
    if (mifuse::speech_share(samples) < mifuse::NEEDED) {
      std::printf("%s no speech\n", argv[i]);
      continue;
    }
    samples.resize(std::max<size_t>(samples.size(), 1600), 0.0f);  // 0.1 s, so that any graph has a frame
    std::array<int64_t, 2> shape = {1, static_cast<int64_t>(samples.size())};
    auto input = Ort::Value::CreateTensor<float>(memory, samples.data(), samples.size(), shape.data(), 2);
    auto output = session.Run(Ort::RunOptions(), inputs, &input, 1, outputs, 1);
    const float* probs = output[0].GetTensorData<float>();
    std::printf("%s", argv[i]);
    for (size_t k = 0; k < labels.size(); k++) std::printf(" %s %.6f", labels[k].c_str(), probs[k]);
    std::printf("\n");
  }
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
