//! The web interface on real sockets, against a real manager and workers, asked by a
//! plain HTTP client.

mod actions;
mod described;
mod hostile;
mod http;
mod pages;
mod stream;
mod support;
