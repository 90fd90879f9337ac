//! ZeroMQ sockets for Carbontube that reconnect, linger, bound and count, behind a front door.
