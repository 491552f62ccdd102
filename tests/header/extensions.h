/*
 * Additions
 *
 * What follows is not in 0.2 of the original. A program that uses none of it still builds and runs
 * there. Results are macros and not enumerators, so as not to upset -Wswitch.
 */
