#pragma once

#include <google/protobuf/repeated_ptr_field.h>

#include "common/base/result.h"
#include "common/engine/request.h"
#include "common/proto/worker.pb.h"

// What a worker tells its router about a request, as messages: the same on both sides of a worker.
namespace baton::serving {

void fill_top(const ops::SampleResult& result,
              google::protobuf::RepeatedPtrField<proto::TopLogprob>& out);
// `index`: of the token in the output, from 0.
void fill_token(const RequestKey& key, uint32_t choice, uint32_t index,
                const ops::SampleResult& result, bool want_logprobs, proto::TokenEvent& out);
void fill_finished(const RequestKey& key, uint32_t choice, const engine::Finish& finish,
                   uint32_t output_tokens, proto::Finished& out);
void fill_failed(const RequestKey& key, const Error& why, bool retryable, proto::Failed& out);

}  // namespace baton::serving
