#include "three.h"

#include "conv.h"
#include "depthwise.h"
#include "isa.h"

namespace mulshift {

namespace {

constexpr size_t kPositions = 128;  // whose sums wait for the epilogue, at least: within the first-level cache

thread_local Buffer sums;

}  // namespace

bool ThreeWindows::fits(const ConvSpec& spec) {
  const Window& v = spec.window;
  if (!isa()->depthwise.three || spec.outputs < kPanel) return false;
  return v.h == 3 && v.w == 3 && v.dilation_h == 1 && v.dilation_w == 1 && v.stride_w <= 2;
}

bool ThreeWindows::prepare(const ConvSpec& spec, const int32_t* bias) {
  const size_t panels = spec.outputs / kPanel;
  int8_t* w = weights_.array<int8_t>(panels * kThreeBytes);
  int32_t* own_bias = bias_.array<int32_t>(panels * kPanel);
  uint8_t* ways = ways_.array<uint8_t>(panels);
  if (!w || !own_bias || !ways) return false;
  std::memcpy(own_bias, bias, panels * kPanel * sizeof(int32_t));
  for (size_t i = 0; i < panels; ++i) {
    const int8_t* taps = spec.bytes() + i * kPanel;
    ways[i] = isa()->depthwise.three->prepare(taps, spec.outputs, w + i * kThreeBytes, own_bias + i * kPanel);
  }
  channels_ = panels * kPanel;
  return true;
}

bool ThreeWindows::run(const ConvSpec& spec, const ThreePart& part, size_t channel) const {
  const Window& v = spec.window;
  const size_t panel = channel / kPanel, stride = spec.outputs;
  const ThreeWay& way = isa()->depthwise.three->ways[static_cast<const uint8_t*>(ways_.data())[panel]];
  const int8_t* w = static_cast<const int8_t*>(weights_.data()) + panel * kThreeBytes;
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
    const ThreeInput in = {part.x + channel, part.image.h, part.image.w, stride, outside, row,
                           -static_cast<ptrdiff_t>(v.pad_left), v.stride_h};
    uint8_t* y = end == kEndElsewhere ? nullptr : static_cast<uint8_t*>(part.epilogue.y) + at * stride + channel;
    const ThreeOutput out = {acc, y, stride, now, part.out_w, bias, &stages};
    (even && now > 1 ? way.two : way.one[v.stride_w - 1])[end](in, w, out);
    if (end == kEndElsewhere) isa()->dense.finish(part.epilogue, acc, kPanel, now * part.out_w, at, channel, kPanel);
    done += now;
  }
  return true;
}

}  // namespace mulshift
