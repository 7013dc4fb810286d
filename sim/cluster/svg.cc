#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "sim/cluster/report.h"

namespace baton::sim {
namespace {

constexpr double kWidth = 760, kHeight = 440;
constexpr double kLeft = 64, kRight = 24, kTop = 64, kBottom = 84;

struct Line {
  const char* name;
  const char* color;  // of a set that the colour-blind tell apart (Okabe and Ito)
  double width;
  double Measures::*what;
};
// "Both" lies under what it mostly equals one of.
constexpr std::array<Line, 3> kLines{{
    {"both met", "#b5b5b5", 7, &Measures::joint_met},
    {"TTFT met", "#0072b2", 2, &Measures::ttft_met},
    {"TPOT met", "#d55e00", 2, &Measures::tpot_met},
}};

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else {
      out += c;
    }
  }
  return out;
}

// 1, 2 or 5 times a power of ten, so that about `n` fit.
double tick_step(double range, int n) {
  const double raw = range / n, power = std::pow(10, std::floor(std::log10(raw)));
  for (const double m : {1.0, 2.0, 5.0}) {
    if (raw <= m * power) return m * power;
  }
  return 10 * power;
}

class Plot {
 public:
  explicit Plot(std::span<const SweepPoint> points) {
    for (const SweepPoint& p : points) most_ = std::max(most_, p.of(&Measures::rate).mean);
    most_ *= 1.04;
  }

  double x(double rate) const { return kLeft + (kWidth - kLeft - kRight) * rate / most_; }
  double y(double share) const { return kHeight - kBottom - (kHeight - kTop - kBottom) * share; }

  std::string axes() const {
    std::string out;
    for (int i = 0; i <= 10; i += 2) {
      const double at = y(i / 10.0);
      out += fmt::format(
          "<line x1='{:.1f}' y1='{:.1f}' x2='{:.1f}' y2='{:.1f}' stroke='#ddd'/>\n"
          "<text x='{:.1f}' y='{:.1f}' text-anchor='end'>{} %</text>\n",
          kLeft, at, kWidth - kRight, at, kLeft - 8, at + 4, i * 10);
    }
    const double step = tick_step(most_, 8);
    for (int i = 0; i * step <= most_; ++i) {
      out += fmt::format(
          "<line x1='{0:.1f}' y1='{1:.1f}' x2='{0:.1f}' y2='{2:.1f}' stroke='#444'/>\n"
          "<text x='{0:.1f}' y='{3:.1f}' text-anchor='middle'>{4:g}</text>\n",
          x(i * step), y(0), y(0) + 5, y(0) + 20, i * step);
    }
    out += fmt::format(
        "<path d='M{0:.1f} {1:.1f} V{2:.1f} H{3:.1f}' fill='none' stroke='#444'/>\n"
        "<text x='{4:.1f}' y='{5:.1f}' text-anchor='middle'>requests a second</text>\n",
        kLeft, y(1), y(0), kWidth - kRight, (kLeft + kWidth - kRight) / 2, y(0) + 40);
    return out;
  }

  std::string line(const Line& line, std::span<const SweepPoint> points) const {
    std::string path, marks;
    for (const SweepPoint& p : points) {
      const double at = x(p.of(&Measures::rate).mean);
      const Estimate e = p.of(line.what);
      path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : " L", at, y(e.mean));
      marks += fmt::format("<circle cx='{:.1f}' cy='{:.1f}' r='3' fill='{}'/>\n", at, y(e.mean),
                           line.color);
      if (e.half_width == 0) continue;
      marks += fmt::format(
          "<path d='M{0:.1f} {1:.1f} V{2:.1f} M{3:.1f} {1:.1f} h6 M{3:.1f} {2:.1f} h6' "
          "stroke='{4}' fill='none'/>\n",
          at, y(std::max(e.mean - e.half_width, 0.0)), y(std::min(e.mean + e.half_width, 1.0)),
          at - 3, line.color);
    }
    return fmt::format(
               "<path d='{}' fill='none' stroke='{}' stroke-width='{}' stroke-linejoin='round'/>\n",
               path, line.color, line.width) +
           marks;
  }

 private:
  double most_ = 1e-9;
};

}  // namespace

std::string to_svg(const ReportHead& head, std::span<const SweepPoint> points) {
  const Plot plot(points);
  std::string out = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {0} {1}' width='{0}' height='{1}' "
      "font-family='sans-serif' font-size='12' fill='#222'>\n"
      "<rect width='{0}' height='{1}' fill='#fff'/>\n"
      "<text x='{2}' y='24' font-size='15'>{3}: {4}</text>\n"
      "<text x='{2}' y='44' fill='#555'>{5} arrivals, policy {6}; TTFT within {7:g} s, TPOT within "
      "{8:g} s</text>\n",
      kWidth, kHeight, kLeft, escaped(head.cluster), escaped(head.trace), escaped(head.arrivals),
      escaped(head.policy), to_seconds(head.slo.ttft), to_seconds(head.slo.tpot));
  out += plot.axes();
  if (head.share > 0) {
    out += fmt::format(
        "<line x1='{:.1f}' y1='{:.1f}' x2='{:.1f}' y2='{:.1f}' stroke='#999' "
        "stroke-dasharray='1 4'/>\n",
        kLeft, plot.y(head.share), kWidth - kRight, plot.y(head.share));
  }
  double legend = kLeft;
  for (const Line& line : kLines) {
    out += plot.line(line, points);
    const double at = kHeight - 16;
    out += fmt::format(
        "<line x1='{:.1f}' y1='{:.1f}' x2='{:.1f}' y2='{:.1f}' stroke='{}' stroke-width='{}'/>\n"
        "<text x='{:.1f}' y='{:.1f}'>{}</text>\n",
        legend, at - 4, legend + 28, at - 4, line.color, line.width, legend + 36, at, line.name);
    legend += 130;
  }
  return out + "</svg>\n";
}

}  // namespace baton::sim
