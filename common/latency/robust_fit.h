#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

namespace baton::latency {

struct FitOptions {
  // Each observation leaves 1 − 1/memory of what was known in its direction.
  double memory = 32;
  // And 1 − 1/long_memory of how much more is known in any direction than at the start.
  double long_memory = 512;
  // How far, as a share of itself, the prior may be off: all factors together, and each alone.
  double common_spread = 0.5, own_spread = 0.25;
  // What an observation scatters by, as a share of itself, when nothing is known yet.
  double scatter = 0.05;
};

// How far observations of one kind usually are from what was expected, and so how much one counts
// that is farther (Huber 1964: as if it were kHuber times the usual one, no more).
class Scatter {
 public:
  explicit Scatter(double start) : usual_(start) {}

  // The weight, in (0, 1], of an observation with this residual; learns from it.
  double weigh(double residual) {
    const double magnitude = std::abs(residual);
    if (magnitude <= kHuber * usual_) {
      run_ = 0;
    } else {
      run_ = residual > 0 ? std::max(run_, 0) + 1 : std::min(run_, 0) - 1;
    }
    if (changed()) {
      usual_ = std::min(std::max(usual_, magnitude / kHuber), kMost);
    } else {  // stochastic approximation of the median, in steps of a tenth
      usual_ = std::clamp(usual_ * (magnitude > usual_ ? 1.1 : 1 / 1.1), kLeast, kMost);
    }
    return std::min(1.0, kHuber * usual_ / std::max(magnitude, 1e-12));
  }

  // So many in a row, far off on the same side, are no outliers: things are no longer as they were.
  bool changed() const { return run_ >= kRun || run_ <= -kRun; }

 private:
  static constexpr double kHuber = 3;
  static constexpr double kLeast = 0.002, kMost = 1;
  static constexpr int kRun = 8;

  double usual_;  // the running median of |residual|
  int run_ = 0;   // outliers in a row; below 0: too short
};

// A linear fit y ≈ Σ x[i]·θ[i] that is taught one observation at a time, with y near 1 (divide by
// what was predicted) and θ near 1 (let the prior be in x). So all is relative: a long step teaches
// no more than a short one.
//
//   Outliers     bounded influence: Scatter says how much an observation counts. Eight in a row,
//   far
//                off on one side, are a change and no outliers: then all is soon as uncertain as at
//                the start, and one speed for all the first guess again.
//   Forgetting   directional (Cao and Schwartz, Automatica 36, 2000): what was known along x is
//                discounted by every observation, and all the rest slowly and never below what is
//                known at the start. So the information matrix cannot run empty, however long all
//                observations look alike, and θ stays as it was learnt where nothing is observed.
//   θ ≥ 0        by projection in the metric of what is known (the constrained minimum where one
//                factor would be negative).
//
// A value: no allocation, no clock; about 200 ns an observation with six factors. Not thread-safe.
template <size_t D>
class RobustFit {
 public:
  using Vector = std::array<double, D>;

  // `start`: θ without any observation; not negative.
  explicit RobustFit(const Vector& start, const FitOptions& options = {})
      : options_(options), start_(start), theta_(start) {
    // The inverse of the prior's covariance, own²·I + common²·11ᵀ in units of scatter².
    const double own = square(options.own_spread / options.scatter);
    const double common = square(options.common_spread / options.scatter);
    for (size_t i = 0; i < D; ++i) {
      for (size_t j = 0; j < D; ++j) {
        prior_[i][j] = ((i == j ? 1.0 : 0.0) - common / (own + common * D)) / own;
      }
    }
    information_ = prior_;
  }

  const Vector& theta() const { return theta_; }

  // `scatter`: of observations of this kind; kept by the caller, so that what is rare is not taken
  // for an outlier of what is common. What is not finite is ignored.
  void observe(const Vector& x, double y, Scatter& scatter) {
    const double residual = y - dot(x, theta_);
    if (!std::isfinite(residual)) return;
    const double weight = scatter.weigh(residual);
    forget_along(x);
    forget_all(scatter.changed() ? kForgottenOnChange : 1 / options_.long_memory);
    for (size_t i = 0; i < D; ++i) {
      for (size_t j = 0; j < D; ++j) information_[i][j] += weight * x[i] * x[j];
    }
    factor();
    const Vector step = solve(x);
    for (size_t i = 0; i < D; ++i) theta_[i] += step[i] * weight * residual;
    keep_in_bounds();
  }

 private:
  using Matrix = std::array<Vector, D>;
  static constexpr double kForgottenOnChange = 0.25;
  static constexpr double kMostTheta = 1e6;

  static constexpr double square(double v) { return v * v; }
  static double dot(const Vector& a, const Vector& b) {
    double sum = 0;
    for (size_t i = 0; i < D; ++i) sum += a[i] * b[i];
    return sum;
  }

  void forget_along(const Vector& x) {
    Vector z{};
    for (size_t i = 0; i < D; ++i) z[i] = dot(information_[i], x);
    const double known = dot(x, z);
    if (!(known > 0)) return;
    const double share = 1 / options_.memory / known;
    for (size_t i = 0; i < D; ++i) {
      for (size_t j = 0; j < D; ++j) information_[i][j] -= share * z[i] * z[j];
    }
  }

  // θ stays; how sure of it we are goes towards what it was at the start.
  void forget_all(double share) {
    for (size_t i = 0; i < D; ++i) {
      for (size_t j = 0; j < D; ++j) {
        information_[i][j] += share * (prior_[i][j] - information_[i][j]);
      }
    }
  }

  // Cholesky of the information. If rounding or forgetting has used it up, the prior's is added.
  void factor() {
    if (try_factor()) return;
    for (size_t i = 0; i < D; ++i) {
      for (size_t j = 0; j < D; ++j) information_[i][j] += prior_[i][j];
    }
    if (!try_factor()) {
      information_ = prior_;
      try_factor();
    }
  }

  bool try_factor() {
    const double least = 1e-3 * square(options_.scatter);
    for (size_t i = 0; i < D; ++i) {
      for (size_t j = 0; j <= i; ++j) {
        double sum = information_[i][j];
        for (size_t k = 0; k < j; ++k) sum -= lower_[i][k] * lower_[j][k];
        if (i != j) {
          lower_[i][j] = sum / lower_[j][j];
        } else if (sum > least) {
          lower_[i][i] = std::sqrt(sum);
        } else {
          return false;
        }
      }
    }
    return true;
  }

  Vector solve(Vector v) const {
    for (size_t i = 0; i < D; ++i) {
      for (size_t k = 0; k < i; ++k) v[i] -= lower_[i][k] * v[k];
      v[i] /= lower_[i][i];
    }
    for (size_t i = D; i-- > 0;) {
      for (size_t k = i + 1; k < D; ++k) v[i] -= lower_[k][i] * v[k];
      v[i] /= lower_[i][i];
    }
    return v;
  }

  void keep_in_bounds() {
    for (size_t round = 0; round < D; ++round) {
      const size_t least = static_cast<size_t>(std::ranges::min_element(theta_) - theta_.begin());
      if (!(theta_[least] < 0)) break;
      Vector unit{};
      unit[least] = 1;
      const Vector column = solve(unit);  // of the covariance
      const double by = theta_[least] / column[least];
      for (size_t i = 0; i < D; ++i) theta_[i] -= by * column[i];
      theta_[least] = 0;
    }
    for (size_t i = 0; i < D; ++i) {
      if (!std::isfinite(theta_[i])) theta_[i] = start_[i];
      theta_[i] = std::clamp(theta_[i], 0.0, kMostTheta);
    }
  }

  FitOptions options_;
  Vector start_, theta_;
  Matrix prior_{}, information_{};
  Matrix lower_{};  // of the last factor(): information = lower·lowerᵀ
};

}  // namespace baton::latency
