#include "direct.h"

#include "conv.h"
#include "depthwise.h"
#include "isa.h"

namespace mulshift {

namespace {

constexpr size_t kPositions = 128;  // whose sums wait for the epilogue, at least: within the first-level cache

thread_local Buffer sums;

const DirectKernels* kernels_of(const Window& v) {
  if (v.h != v.w || v.dilation_h != 1 || v.dilation_w != 1 || v.stride_w > 2) return nullptr;
  return v.h == 3 ? isa()->depthwise.three : v.h == 5 ? isa()->depthwise.five : nullptr;
}

}  // namespace

bool DirectWindows::prepare(const ConvSpec& spec, const int32_t* bias) {
  kernels_ = kernels_of(spec.window);
  const size_t panels = kernels_ ? spec.outputs / kPanel : 0;
  if (!panels) return true;
  int8_t* w = weights_.array<int8_t>(panels * kernels_->bytes);
  int32_t* own_bias = bias_.array<int32_t>(panels * kPanel);
  uint8_t* ways = ways_.array<uint8_t>(panels);
  if (!w || !own_bias || !ways) return false;
  std::memcpy(own_bias, bias, panels * kPanel * sizeof(int32_t));
  for (size_t i = 0; i < panels; ++i) {
    const int8_t* taps = spec.bytes() + i * kPanel;
    ways[i] = kernels_->prepare(taps, spec.outputs, w + i * kernels_->bytes, own_bias + i * kPanel);
  }
  channels_ = panels * kPanel;
  return true;
}

bool DirectWindows::run(const ConvSpec& spec, const DirectPart& part, size_t channel) const {
  const Window& v = spec.window;
  const size_t panel = channel / kPanel, stride = spec.outputs;
  const DirectWay& way = kernels_->ways[this->way(channel)];
  const int8_t* w = static_cast<const int8_t*>(weights_.data()) + panel * kernels_->bytes;
  const int32_t* bias = static_cast<const int32_t*>(bias_.data()) + channel;
  const Stages stages = from_column(*part.epilogue.stages, channel);
  const End end = end_of(stages);
  const bool even = v.stride_h == 1 && v.stride_w == 1;
  const size_t lines = part.last - part.first, held = end == kEndElsewhere ? 2 + kPositions / part.out_w / 2 * 2 : lines;
  int32_t* acc = end == kEndElsewhere ? sums.array<int32_t>(held * part.out_w * kPanel) : nullptr;
  if (end == kEndElsewhere && !acc) return false;
  uint8_t outside[kPanel];
  std::memset(outside, spec.x_zero_point, sizeof(outside));
  for (size_t done = 0; done < lines;) {
    const size_t left = lines - done < held ? lines - done : held, now = even && left > 1 ? left / 2 * 2 : left;
    const size_t line = part.first + done, at = part.row + line * part.out_w;
    const ptrdiff_t row = static_cast<ptrdiff_t>(line * v.stride_h) - static_cast<ptrdiff_t>(v.pad_top);
    const DirectInput in = {part.x + channel, part.image.h, part.image.w, stride, outside, row,
                           -static_cast<ptrdiff_t>(v.pad_left), v.stride_h};
    uint8_t* y = end == kEndElsewhere ? nullptr : static_cast<uint8_t*>(part.epilogue.y) + at * stride + channel;
    const DirectOutput out = {acc, y, stride, now, part.out_w, bias, &stages};
    (even && now > 1 ? way.two : way.one[v.stride_w - 1])[end](in, w, out);
    if (end == kEndElsewhere) isa()->dense.finish(part.epilogue, acc, kPanel, now * part.out_w, at, channel, kPanel);
    done += now;
  }
  return true;
}

}  // namespace mulshift
