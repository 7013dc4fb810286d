#pragma once

namespace baton::kvtransfer {

// UCX takes over fatal signals when it is loaded; they are the process's own business. A crash is
// then for the core file, not for UCX's report.
void give_signals_back();

}  // namespace baton::kvtransfer
