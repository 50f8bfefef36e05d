/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* 32-bit programs have functions of their own in the kernel; one is the twin of the machine's own call that does the same. A program on a
 * twin is told by the loader which call that is: the numbers of 32-bit programs are others. */
#ifndef FAULTD_TWIN_H
#define FAULTD_TWIN_H

#include "call.h"

const volatile __u32 twin_number;
const volatile __u32 twin_compat; /* see struct call */

#define TWIN_CALL ((struct call){.number = twin_number, .compat = twin_compat})

#endif
