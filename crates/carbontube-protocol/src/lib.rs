//! Messages, codecs, limits, addresses and ids of the Carbontube job-pipeline protocol.
