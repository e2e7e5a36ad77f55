/* What every unit test includes: cmocka wants these four before itself. */
#ifndef SBXFS_TEST_H
#define SBXFS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
