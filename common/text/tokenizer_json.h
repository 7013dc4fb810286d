#pragma once

#include "common/base/result.h"
#include "common/formats/hf_json.h"
#include "common/text/normalizer.h"
#include "common/text/pre_tokenizer.h"

// Parts of tokenizer.json. `root` is the whole document; what is not there does nothing.
// kUnsupported for a step of another kind, kDataCorrupt for one that lacks what it needs.
namespace baton::text {

result<Normalizer> read_normalizer(const formats::JsonFields& root);

struct PreTokenizerJson {
  PreTokenizer pre_tokenizer;
  bool byte_level = false;  // pieces become bytes
};
result<PreTokenizerJson> read_pre_tokenizer(const formats::JsonFields& root);

}  // namespace baton::text
