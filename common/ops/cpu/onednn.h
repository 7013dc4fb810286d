#pragma once

#include <memory>
#include <span>
#include <string>

#include "common/ops/ops.h"

// Matrix products by oneDNN's packed brgemm: faster than our own kernel where the machine has
// instructions that this one does not use (AVX512_BF16). onednn.cc, or onednn_absent.cc in a build
// without the library.
namespace baton::ops {

// The kernel by which this machine's oneDNN multiplies weights of this type, if it is one whose
// rows should not depend on one another ("brg:*"; its others do) and the same for all shapes; else
// empty. Prepares some products to find out. By the name alone: see check_onednn().
std::string onednn_invariant_kernel(DType store);

// Whether its bf16 products are what Ops asks for, by computing some (product_check.h).
status check_onednn();

// The name of the kernel that it chooses for one product, for logs; empty if it has none.
std::string onednn_kernel(DType store);

// "2.6.3"; its kernels may round differently from release to release.
std::string onednn_version();

// As Ops::pack, for oneDNN. Activations are rounded to bf16 where the weights are bf16. Fails with
// kUnsupported if oneDNN has no kernel for the shape, or, where `invariant` is asked for, another
// than onednn_invariant_kernel(). The matrix works with threads of our own pool; the first product
// of so many rows prepares (and allocates) its kernel.
result<std::unique_ptr<PackedMatrix>> onednn_pack(device::Device&, std::span<const Tensor> parts,
                                                  DType store, bool invariant);

}  // namespace baton::ops
