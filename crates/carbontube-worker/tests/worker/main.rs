//! The worker against a scripted manager, over real sockets.
