/*
 * Additions
 *
 * What follows is not in 0.2 of the original. A program that uses none of it still builds and runs
 * there.
 */
