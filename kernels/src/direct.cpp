#include "direct.h"

#include "conv.h"
#include "depthwise.h"
#include "isa.h"

namespace mulshift {

namespace {

constexpr size_t kPositions = 128;  // whose sums wait for the epilogue, at least: within the first-level cache

thread_local Buffer sums, bytes;

const DirectKernels* kernels_of(const Window& v) {
  if (v.h != v.w || v.dilation_h != 1 || v.dilation_w != 1 || v.stride_w > 2) return nullptr;
  return v.h == 3 ? isa()->depthwise.three : v.h == 5 ? isa()->depthwise.five : nullptr;
}

// Of several panels, which may not agree.
End end_of(const Stages& stages, size_t panels) {
  const End end = mulshift::end_of(stages);
  for (size_t i = 1; i < panels; ++i) {
    const Stages s = from_column(stages, i * kPanel);
    if (mulshift::end_of(s) != end || s.ways->left != stages.ways->left) return kEndElsewhere;
  }
  return end;
}

}  // namespace

bool DirectWindows::prepare(const ConvSpec& spec, const int32_t* bias) {
  kernels_ = kernels_of(spec.window);
  const size_t channels = kernels_ ? spec.outputs / kPanel * kPanel : 0;
  if (!channels) return true;
  int8_t* w = weights_.array<int8_t>(channels / kPanel * kernels_->bytes);
  int32_t* own_bias = bias_.array<int32_t>(channels);
  uint8_t* ways = ways_.array<uint8_t>(channels / kPanel);
  if (!w || !own_bias || !ways) return false;
  std::memcpy(own_bias, bias, channels * sizeof(int32_t));
  shared_ = channels / kPanel / kernels_->panels * kernels_->panels * kPanel;
  for (size_t channel = 0; channel < channels; channel += kernels(channel).panels * kPanel) {
    const DirectKernels& kernels = this->kernels(channel);
    int8_t* out = w + channel / kPanel * kernels.bytes;
    const uint8_t way = kernels.prepare(spec.bytes() + channel, spec.outputs, out, own_bias + channel);
    for (size_t i = 0; i < kernels.panels; ++i) ways[channel / kPanel + i] = way;
  }
  channels_ = channels;
  return true;
}

bool DirectWindows::run(const ConvSpec& spec, const DirectPart& part, size_t channel) const {
  const Window& v = spec.window;
  const DirectKernels& kernels = this->kernels(channel);
  const size_t panels = kernels.panels, channels = panels * kPanel, stride = spec.outputs;
  const DirectWay& way = kernels.ways[this->way(channel)];
  const int8_t* w = static_cast<const int8_t*>(weights_.data()) + channel / kPanel * kernels.bytes;
  const int32_t* bias = static_cast<const int32_t*>(bias_.data()) + channel;
  const Stages stages = from_column(*part.epilogue.stages, channel);
  const End end = end_of(stages, panels);
  const bool even = v.stride_h == 1 && v.stride_w == 1 && way.two[end];
  const size_t lines = part.last - part.first, most = end == kEndElsewhere ? 2 + kPositions / part.out_w / 2 * 2 : lines;
  int32_t* acc = end == kEndElsewhere ? sums.array<int32_t>(most * part.out_w * channels) : nullptr;
  uint8_t* held = end == kEndElsewhere ? nullptr : bytes.array<uint8_t>(held_bytes(part.out_w));
  if (!acc && !held) return false;
  uint8_t outside[kDirectChannels];
  std::memset(outside, spec.x_zero_point, sizeof(outside));
  for (size_t done = 0; done < lines;) {
    const size_t left = lines - done < most ? lines - done : most, now = even && left > 1 ? left / 2 * 2 : left;
    const size_t line = part.first + done, at = part.row + line * part.out_w;
    const ptrdiff_t row = static_cast<ptrdiff_t>(line * v.stride_h) - static_cast<ptrdiff_t>(v.pad_top);
    const DirectInput in = {part.x + channel, part.image.h, part.image.w, stride, outside, row,
                           -static_cast<ptrdiff_t>(v.pad_left), v.stride_h};
    uint8_t* y = end == kEndElsewhere ? nullptr : static_cast<uint8_t*>(part.epilogue.y) + at * stride + channel;
    const DirectOutput out = {acc, y, held, stride, now, part.out_w, bias, &stages};
    (even && now > 1 ? way.two : way.one[v.stride_w - 1])[end](in, w, out);
    if (end == kEndElsewhere) isa()->dense.finish(part.epilogue, acc, channels, now * part.out_w, at, channel, channels);
    done += now;
  }
  return true;
}

}  // namespace mulshift
