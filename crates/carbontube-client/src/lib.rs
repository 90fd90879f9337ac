//! The Carbontube client: enqueue with confirmation, wait, query and administer.
