//! The end-to-end tests are the test target `e2e`; there is nothing in this library.
