// The last script: every view is registered.

trit.start();
